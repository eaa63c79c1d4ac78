"""The interpreted tier: a step as a list of small tensor operations, run by C++ that is compiled once. May import `native` and `graph`."""
