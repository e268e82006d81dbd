"""`python -m gradnoise`, as torchrun starts it on several ranks."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
