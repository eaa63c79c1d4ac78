"""What a captured step depends on beside its inputs, and whether it still is as it was. Imports nothing of the engine."""
