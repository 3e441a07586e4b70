"""`python -m berth` is the `berth` command."""

from __future__ import annotations

import sys

from berth.cli.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv))
