"""The public names have the types that a user's type checker is told; see tests/typing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SAMPLES = Path(__file__).parents[1] / "typing"


@pytest.mark.parametrize("sample", sorted(SAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_a_sample_of_users_code_checks(sample: Path, tmp_path: Path) -> None:
    """Strictly, by a configuration of its own: what is ignored there is an error that must be there."""
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\nstrict = true\nwarn_unused_ignores = true\n[mypy-mainspring.*]\nignore_errors = true\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(tmp_path / "mypy.ini"),
         "--cache-dir", str(tmp_path / "cache"), str(sample)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
