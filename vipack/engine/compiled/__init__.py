"""The compiled tier: a step as machine code of its own, built by another process. May import `native`, `graph`, `inductor` and `interpreter`."""
