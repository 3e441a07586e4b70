"""`python -m berth` is the `berth` command."""

from __future__ import annotations

import sys

from berth.cli.main import leave

if __name__ == "__main__":
    leave(sys.argv)
