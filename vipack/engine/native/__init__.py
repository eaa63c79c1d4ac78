"""What both native tiers are made of: types, memory, calls of torch's operators and loops in C++. Imports nothing of the engine's other rooms."""
