"""The scripts of bench/ import each other by bare names. They come last on the path, so that they hide nothing."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[3] / "bench"))
