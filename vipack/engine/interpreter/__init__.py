"""A step's graph as a list of small tensor operations, run by an interpreter in C++ that is compiled once a machine."""
