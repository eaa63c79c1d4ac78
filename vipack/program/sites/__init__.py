"""The sites and plates of a program, and whether model and guide agree on them."""
