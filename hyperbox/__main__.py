"""``python -m hyperbox`` is ``hyperbox``."""

from __future__ import annotations

import sys

from hyperbox.cli.main import main

sys.exit(main())
