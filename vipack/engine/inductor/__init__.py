"""Inductor's generated program, read into a plan of kernels and library calls. May import `native`."""
