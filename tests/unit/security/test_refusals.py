"""Everything that must be refused is refused, with assertions compiled in and with them compiled out."""

import subprocess
import sys
from pathlib import Path

import pytest

from kit import refusals


@pytest.mark.parametrize(("kind", "call"), [pytest.param(k, c, id=name) for name, k, c in refusals.refusals()])
def test_it_is_refused(kind, call) -> None:
    with pytest.raises(kind):
        call()


def test_it_is_refused_without_assertions() -> None:
    program = Path(refusals.__file__)
    done = subprocess.run([sys.executable, "-O", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{len(refusals.refusals())} refusals tried, optimised: 1\n"
