"""Compiled Python of an image, by the image's own interpreter, so that a start does not compile what it imports.

A file's bytes may depend on what its process compiled before. So each group has a process of its own, with a fixed
hash seed and its files in order, and the same files give the same bytes. Files name their place in the image.

Processes run at the same time, and import modules that one of them compiles. So they import sources alone, and leave
nothing: else one would write a module's bytes, as imports have them, over those that another had compiled.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mainspring.core.cores import usable_cores
from mainspring.core.errors import Corrupt
from mainspring.deploy.images.debian import PYTHON
from mainspring.deploy.images.layers import Entry

_LINKERS = {
    "amd64": ("lib64/ld-linux-x86-64.so.2", "usr/lib/x86_64-linux-gnu"),
    "arm64": ("lib/ld-linux-aarch64.so.1", "usr/lib/aarch64-linux-gnu"),
}
_MACHINES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
_COMPILE = """
import py_compile, sys
for path in sys.stdin.read().splitlines():
    folder, _, name = path.rpartition("/")
    compiled = f"{folder}/__pycache__/{name.removesuffix('.py')}.cpython-313.pyc"
    try:
        py_compile.compile(path, cfile=compiled, dfile="/" + path, doraise=True, quiet=1,
                           invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    except py_compile.PyCompileError:
        pass
"""


def architecture() -> str:
    """Return the architecture of this machine, as images name it."""
    machine = platform.machine().lower()
    return _MACHINES.get(machine, machine)


def can_compile(arch: str) -> bool:
    """Return whether an image's interpreter runs here."""
    return sys.platform == "linux" and arch == architecture()


def compiled(groups: Mapping[str, Sequence[Entry]], base: Sequence[Entry], arch: str) -> dict[str, list[Entry]]:
    """Return the compiled files of groups of entries, by group.

    Args:
        base: Files of the base, among them the interpreter.

    Raises:
        Corrupt: The interpreter does not run.
    """
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(min(4, usable_cores())) as threads:
        root = Path(folder)
        _write(root, base)
        for entries in groups.values():
            if entries is not base:
                _write(root, [each for each in entries if each.path.endswith(".py") and not each.link])
        found = threads.map(lambda name: _compile(root, groups[name], arch), groups)
        return dict(zip(groups, found, strict=True))


def _compile(root: Path, entries: Sequence[Entry], arch: str) -> list[Entry]:
    sources = sorted(each.path for each in entries if each.path.endswith(".py") and each.content is not None)
    if not sources:
        return []
    linker, libraries = _LINKERS[arch]
    done = subprocess.run(
        [root / linker, "--library-path", root / libraries, root / PYTHON, "-B", "-S", "-c", _COMPILE],
        input="\n".join(sources).encode(),
        cwd=root,
        env={
            "PYTHONHOME": str(root / "usr"),
            "PYTHONHASHSEED": "0",
            "PYTHONPYCACHEPREFIX": str(root / "none"),
            "PYTHONUTF8": "1",
            "LC_ALL": "C",
        },
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise Corrupt(f"The image's Python does not run: {done.stderr.decode(errors='replace')[-300:]}")
    found = []
    for source in sources:
        path = Path(source)
        cached = path.parent / "__pycache__" / f"{path.stem}.cpython-313.pyc"
        if (root / cached).exists():
            found.append(Entry(path=str(cached), content=(root / cached).read_bytes()))
    return found


def _write(root: Path, entries: Sequence[Entry]) -> None:
    for entry in entries:
        path = root / entry.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if entry.link:
            path.symlink_to(entry.link)
        elif entry.content is not None:
            path.write_bytes(entry.content)
            path.chmod(0o755 if entry.mode & 0o111 else 0o644)
