"""`python -m hebbjax`."""

import sys

from hebbjax.cli import main

if __name__ == '__main__':
    sys.exit(main())
