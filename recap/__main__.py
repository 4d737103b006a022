"""``python -m recap VERB …`` is the console script ``recap VERB …``."""

import sys

from recap.cli.command import main

if __name__ == "__main__":
    sys.exit(main())
