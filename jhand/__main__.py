"""`python -m jhand` is the command line of `jhand.cli`."""

import sys

from jhand.cli import main

sys.exit(main())
