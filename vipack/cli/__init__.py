"""The command line: ``vipack demo``, ``check``, ``fit``, ``compare`` and ``topics``. Here things are printed, and guides have names."""

from vipack.cli.command_line import main

__all__ = ["main"]
