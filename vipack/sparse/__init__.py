"""Counts of which few are not zero: passes over their rows in C++, and the distribution of a bag of words. Imports the engine's native room for its cache alone."""
