"""The wheel is the same to the byte wherever and whenever it is built."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PARTS = ("src/", "examples/", "docs/", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md")


def build(into: Path, mask: int, at: int) -> bytes:
    """Return the wheel of a copy of the repository's files, of another age and with other rights."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in listed.decode().split("\0"):
        if name.startswith(PARTS):
            to = into / name
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, to)
            to.chmod(0o666 & ~mask)
            os.utime(to, (at, at))
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(into / "dist")]
    subprocess.run(command, cwd=into, check=True, capture_output=True, umask=mask)
    (wheel,) = (into / "dist").glob("*.whl")
    return wheel.read_bytes()


def test_a_wheel_is_reproducible(tmp_path: Path) -> None:
    assert build(tmp_path / "one", 0o022, 1_600_000_000) == build(tmp_path / "elsewhere", 0o077, 1_700_000_000)
