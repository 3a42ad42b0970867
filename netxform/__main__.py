"""`python -m netxform`."""

import sys

from netxform.cli import main

sys.exit(main())
