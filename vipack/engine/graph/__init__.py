"""A training step as a graph of tensor operations, and what can be computed once in it. May import `optimizers`."""
