"""`python -m eqxgen`: the console command."""

import sys

from eqxgen._command import main

sys.exit(main())
