"""``python -m latticeward.agent``."""

import sys

from latticeward.agent.cli import main

sys.exit(main())
