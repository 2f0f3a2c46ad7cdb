"""`python -m byhand` is `byhand`."""

import sys

from byhand.cli import main

if __name__ == "__main__":
    sys.exit(main())
