"""`python -m fruitgan` is `fruitgan`."""

from __future__ import annotations

import sys

from fruitgan.cli import main

if __name__ == "__main__":
    sys.exit(main())
