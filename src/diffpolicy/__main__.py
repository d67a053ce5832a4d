"""`python -m diffpolicy`."""

import sys

from diffpolicy.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
