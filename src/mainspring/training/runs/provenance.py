"""Provenance of a training: its data, code, definitions and packages, pinned before it begins."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

import msgspec

from mainspring.core.errors import Invalid
from mainspring.core.time import Clock
from mainspring.data import commits
from mainspring.data.model import DatasetCommit, TableScan
from mainspring.data.ports import LakeTables, Snapshots
from mainspring.features import definitions
from mainspring.training.model import Model

ENVIRONMENT, CODE_DIFF, DEFINITIONS = "environment.json", "code.diff", "definitions.json"  # artefacts of a run
NO_DIFF = "code_diff"  # tag: reason for a missing `code.diff`
CODE_CHANGED = "code_changed"  # tag: files that changed after they were imported
STATE = ".mainspring"  # folder of state, not part of a project's code
_LARGEST_DIFF = 16_000_000  # bytes
_MOST_NEW = 500  # files
ModuleFiles = Mapping[Path, tuple[int, int]]  # file -> (modification time in ns, size in bytes)
_SUFFIXES = (".py", ".toml", ".sql")
_NAMED = ("mainspring", "numpy", "pandas", "scikit-learn", "onnx", "onnxruntime", "skl2onnx", "duckdb", "pyarrow")


@dataclass(frozen=True, slots=True)
class Pinned:
    """Pinned versions of everything that a training reads."""

    commit: DatasetCommit
    code: str  # git commit, `+changed` if files differ; empty outside git
    files: str  # digest of the project's files
    features: bytes  # the definitions, encoded as in a bundle
    packages: dict[str, str]
    diff: bytes = b""  # changes since the git commit
    no_diff: str = ""  # reason for a missing diff

    @property
    def code_version(self) -> str:
        """The git commit, or the digest of the files outside git."""
        return self.code or f"files:{self.files}"

    @property
    def files_of_run(self) -> dict[str, bytes]:
        """The artefacts that a run stores: environment, definitions, and the diff if there is one."""
        packages = {name: version for name, version in self.packages.items() if name != "python"}
        environment = {
            "python": self.packages.get("python", ""),
            **machine(),
            "mainspring_files": package_digest(),
            "packages": packages,
        }
        kept = {
            ENVIRONMENT: msgspec.json.format(msgspec.json.encode(environment), indent=1),
            DEFINITIONS: self.features,
        }
        return {**kept, CODE_DIFF: self.diff} if self.diff else kept

    @property
    def tags(self) -> dict[str, str]:
        """The tags that a run stores."""
        missing = {NO_DIFF: self.no_diff} if self.no_diff else {}
        return {
            **missing,
            "dataset_commit": self.commit.id,
            "code_version": self.code_version,
            "files_digest": self.files,
            "features_digest": hashlib.sha256(self.features).hexdigest(),
            "environment": environment_summary(self.packages),
        }


def pin(
    model: Model,
    lake: LakeTables,
    snapshots: Snapshots,
    clock: Clock,
    root: Path,
    *,
    commit: DatasetCommit | None = None,
) -> Pinned:
    """Commit the current version of every table, or take `commit`, and record the code in `root`."""
    return Pinned(
        commit or commits.commit(lake, snapshots, clock, f"train {model.name}"),
        code_version(root),
        files_digest(root),
        definitions.dump(model.features, model.observations),
        environment(),
        *_diff(root),
    )


def _diff(root: Path) -> tuple[bytes, str]:
    try:
        return code_diff(root), ""
    except Invalid as error:  # training is possible, but not reproducible from git alone
        return b"", str(error)


def pinned_scan(lake: LakeTables, commit: DatasetCommit, table: str) -> TableScan:
    """Return a scan of `table` at the version that the commit names.

    Raises:
        NotFound: The commit lacks the table: it was never ingested into.
    """
    return lake.scan(table, commits.version_of(commit, table))


def code_version(root: Path) -> str:
    """Return the git commit of `root`, with `+changed` if files differ from it; `""` outside git."""
    git = shutil.which("git")
    if git is None:
        return ""
    commit = _git(git, root, "rev-parse", "HEAD")
    if not commit:
        return ""
    changed = _git(git, root, "status", "--porcelain", "--", ".", ":(exclude).mainspring")
    return f"{commit}+changed" if changed else commit


def _git(git: str, root: Path, *arguments: str) -> str:
    found = run_git(git, root, *arguments)
    return "" if found is None else found.decode(errors="replace").strip()


def run_git(
    git: str, root: Path, *arguments: str, fine: tuple[int, ...] = (0,), environment: Mapping[str, str] | None = None
) -> bytes | None:
    """Run git in `root` and return its output, `None` if it fails: the exit code is not in `fine`.

    Args:
        environment: The complete environment of git, instead of this process's.
    """
    # keep the repository's configuration from running programs
    safe = ["-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"]
    try:
        done = subprocess.run(
            [git, *safe, "-C", str(root), *arguments],
            capture_output=True,
            timeout=60,
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return None
    return done.stdout if done.returncode in fine else None


def code_diff(root: Path, used: Collection[Path] | None = None) -> bytes:
    """Return the project's changes since the git commit of `root`, in the format of `git apply`.

    The diff has every change in a tracked file in `root`, and each imported module that git neither tracks nor ignores.
    Other untracked Python, TOML and SQL files may hold private content, so they are only listed at the beginning, with
    name and SHA-256. Empty outside git. Paths are relative to the top of the repository.

    Args:
        used: Untracked files whose content is kept, instead of those of imported modules.

    Raises:
        Invalid: The diff exceeds 16 MB, or there are more than 500 untracked files.
    """
    git = shutil.which("git")
    top = _git(git, root, "rev-parse", "--show-toplevel") if git else ""
    if git is None or not top or not _git(git, root, "rev-parse", "HEAD"):
        return b""
    plain = ("--no-ext-diff", "--no-textconv", "--no-color", "--binary")
    parts = [run_git(git, root, "diff", *plain, "HEAD", "--", ".", ":(exclude).mainspring") or b""]
    listed = run_git(git, root, "ls-files", "--others", "--exclude-standard", "--full-name", "-z", "--", ".") or b""
    names = [name for name in listed.decode(errors="surrogateescape").split("\0") if name.endswith(_SUFFIXES)]
    names = [name for name in names if STATE not in name.split("/")]
    if len(names) > _MOST_NEW:
        raise Invalid(
            f"{root} has {len(names)} code files that git does not track.", fix="commit them, or ignore them."
        )
    new = ("diff", "--no-index", *plain, "--", "/dev/null")
    kept = {path.resolve() for path in (map(Path, _imported()) if used is None else used)}
    for name in names:
        path = Path(top, name)
        if path.resolve() in kept:
            parts.append(run_git(git, Path(top), *new, name, fine=(0, 1)) or b"")
        elif path.is_file():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            parts.insert(0, f"# not kept, git does not know it: {name!a} sha256:{digest}\n".encode())
    diff = b"".join(parts)
    if len(diff) > _LARGEST_DIFF:
        raise Invalid(f"{root} differs from its git commit by {len(diff) // 1_000_000} MB.", fix="commit the changes.")
    return diff


def _imported() -> Iterator[str]:
    for module in list(sys.modules.values()):
        try:
            file = getattr(module, "__file__", None)
        except Exception:  # noqa: S112  (sys.modules may hold objects that import or raise on attribute access)
            continue
        if isinstance(file, str):
            yield file


def module_files(root: Path) -> ModuleFiles:
    """Return the files in `root` that this process has imported as modules, with their state."""
    inside = os.path.join(root, "")  # noqa: PTH118  (a Path for each of thousands of modules would be slow)
    states = {file: _state(file) for file in map(Path, {file for file in _imported() if file.startswith(inside)})}
    return {file: state for file, state in states.items() if state is not None}


def changed_files(imported: ModuleFiles) -> list[Path]:
    """Return the files that changed after they were imported."""
    return sorted(file for file, before in imported.items() if _state(file) != before)


def _state(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:  # deleted or no longer readable
        return None
    return (found.st_mtime_ns, found.st_size)


def files_digest(root: Path) -> str:
    """Return the SHA-256 over the project's Python, TOML and SQL files and their names, without hidden folders."""
    digest = hashlib.sha256()
    for path in sorted(_files(root)):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def file_digests(root: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of `files_digest`, by its path below the root."""
    every = {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(_files(root))}
    return {name: hashlib.sha256(content).hexdigest() for name, content in every.items()}


def _files(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        here = Path(folder)
        folders[:] = [
            name for name in folders if not name.startswith((".", "__")) and not (here / name / "pyvenv.cfg").exists()
        ]
        yield from (here / name for name in names if name.endswith(_SUFFIXES) and (here / name).is_file())


@cache
def package_digest() -> str:
    """Return the SHA-256 over this package's own files, which may change without a new version number."""
    return files_digest(Path(__file__).parents[2])


def environment() -> dict[str, str]:
    """Return name -> version of Python and of every installed package."""
    found = map(_name_and_version, metadata.distributions())
    versions = {name: version for name, version in found if name}
    return {"python": platform.python_version(), **dict(sorted(versions.items(), key=lambda item: item[0].lower()))}


def _name_and_version(package: metadata.Distribution) -> tuple[str, str]:
    """Return what the head of a package's metadata says; `package.metadata` parses its long description each time."""
    text = package.read_text("METADATA") or package.read_text("PKG-INFO") or package.read_text("") or ""
    head = text.partition("\n\n")[0]
    name, version = (re.search(rf"^{field}:[ \t]*(\S.*?)[ \t]*$", head, re.MULTILINE) for field in ("Name", "Version"))
    return name[1] if name else "", version[1] if version else ""


def machine() -> dict[str, str]:
    """Return the platform: Python implementation, operating system, architecture, number of processors."""
    return {
        "implementation": platform.python_implementation(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "processors": str(os.cpu_count() or 1),
    }


def environment_summary(installed: dict[str, str]) -> str:
    """Return the versions of the main packages in one line."""
    return " ".join(f"{name}={installed[name]}" for name in ("python", *_NAMED) if name in installed)
