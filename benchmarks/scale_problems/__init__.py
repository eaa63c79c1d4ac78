"""What ``python -m benchmarks.scale`` measures, a module each."""
