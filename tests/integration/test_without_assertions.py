"""Everything that must be refused is refused also where assertions are compiled out (`python -O`)."""

import subprocess
import sys
from pathlib import Path

from kit import refusals


def test_it_is_refused_without_assertions() -> None:
    program = Path(refusals.__file__)
    done = subprocess.run([sys.executable, "-O", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{len(refusals.refusals())} refusals tried, optimised: 1\n"
