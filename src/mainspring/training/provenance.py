"""What a model was made with: which code, which packages."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

_SUFFIXES = (".py", ".toml", ".sql")
_NAMED = ("mainspring", "numpy", "pandas", "scikit-learn", "onnx", "onnxruntime", "skl2onnx", "duckdb", "pyarrow")


def code_version(root: Path) -> str:
    """Return the git commit that `root` is at, with `+changed` if a file there differs from it; `""` outside git."""
    git = shutil.which("git")
    if git is None:
        return ""
    commit = _git(git, root, "rev-parse", "HEAD")
    if not commit:
        return ""
    changed = _git(git, root, "status", "--porcelain", "--", ".", ":(exclude).mainspring")
    return f"{commit}+changed" if changed else commit


def _git(git: str, root: Path, *arguments: str) -> str:
    # no configuration of the repository may run a program of its choice
    safe = ["-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"]
    try:
        done = subprocess.run(
            [git, *safe, "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def files_digest(root: Path) -> str:
    """Return the SHA-256 of the project's Python, TOML and SQL files with their names; hidden folders are left out."""
    digest = hashlib.sha256()
    for path in sorted(_files(root)):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _files(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        here = Path(folder)
        folders[:] = [
            name for name in folders if not name.startswith((".", "__")) and not (here / name / "pyvenv.cfg").exists()
        ]
        yield from (here / name for name in names if name.endswith(_SUFFIXES) and (here / name).is_file())


def environment() -> dict[str, str]:
    """Return name -> version of Python and of every installed package."""
    found = {each.metadata["Name"]: each.version for each in metadata.distributions() if each.metadata["Name"]}
    return {"python": platform.python_version(), **dict(sorted(found.items(), key=lambda item: item[0].lower()))}


def environment_summary(installed: dict[str, str]) -> str:
    """Return the versions that decide most, in one line."""
    return " ".join(f"{name}={installed[name]}" for name in ("python", *_NAMED) if name in installed)
