"""The command line: ``vipack demo``, ``check``, ``fit`` and ``compare``. Here things are printed, and guides have names."""

from vipack.cli.command_line import main

__all__ = ["main"]
