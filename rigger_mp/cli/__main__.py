"""Lets ``python -m rigger_mp.cli`` run the command."""

import sys

from rigger_mp.cli.main import main

sys.exit(main())
