"""``python -m vipack``, the same as ``vipack``."""

import sys

from vipack.cli.command_line import main

if __name__ == "__main__":
    sys.exit(main())
