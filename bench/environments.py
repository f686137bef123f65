"""Fresh virtual environments for measuring: made by uv where it is installed, else by pip. Nothing is cached.

What our own pyproject.toml tells uv, such as which versions override others, is not for them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PEERS = ROOT / ".venv-peers"
RECORD = "installed.json"


@dataclass(frozen=True)
class Installed:
    """What an installation put on the disk, and how long it took, downloads included."""

    packages: int
    megabytes: float
    seconds: float


def create(folder: Path, requirements: Sequence[str], then: Sequence[str] = (), *, by_pip: bool = False) -> Installed:
    """Make a virtual environment at `folder` that holds `requirements`, and record what it took beside them.

    Args:
        then: What is installed after that, for other benchmarks, and is no part of the record.
        by_pip: Install by pip even where uv is there: its configuration says which build of PyTorch suits the machine.

    Raises:
        subprocess.CalledProcessError: The installer failed; its output is the error's.
    """
    shutil.rmtree(folder, ignore_errors=True)
    uv = None if by_pip else find_uv()
    python = folder / "bin" / "python"
    _run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)] if uv else
         [sys.executable, "-m", "venv", str(folder)])  # fmt: skip
    install = (
        [uv, "pip", "install", "--no-config", "--no-cache", "--quiet", "--python", str(python)]
        if uv
        else [str(python), "-m", "pip", "install", "--no-cache-dir", "--quiet"]
    )
    before = time.perf_counter()
    _run([*install, *requirements])
    seconds = time.perf_counter() - before
    packages, size = _contents(next(folder.glob("lib/python*/site-packages")))
    installed = Installed(packages, round(size / 1e6, 1), round(seconds, 1))
    if then:
        _run([*install, *then])
    (folder / RECORD).write_text(json.dumps(asdict(installed)))
    return installed


def recorded(folder: Path) -> Installed | None:
    """Return what `create` recorded of the environment at `folder`, `None` where it was never made."""
    path = folder / RECORD
    return Installed(**json.loads(path.read_text())) if path.exists() else None


def find_uv() -> str | None:
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.exists() else shutil.which("uv")


def _contents(site: Path) -> tuple[int, int]:
    """Return how many distributions `site` holds and its bytes, without the installer's own and compiled files."""
    own = ("pip", "setuptools", "_virtualenv", "distutils-precedence")
    packages = [path for path in site.glob("*.dist-info") if not path.name.startswith(own)]
    files = (path for path in site.rglob("*") if path.is_file() and path.suffix != ".pyc")
    size = sum(path.stat().st_size for path in files if not path.relative_to(site).parts[0].startswith(own))
    return len(packages), size


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
