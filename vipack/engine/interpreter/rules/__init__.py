"""Which kernels of the interpreter do which of torch's operators."""
