"""A project's code as recorded by a run: its git commit with uncommitted changes, else the current files."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mainspring.core.environment import for_child
from mainspring.training.runs.provenance import files_digest, run_git

_INDEX = "GIT_INDEX_FILE"


@dataclass(frozen=True, slots=True)
class RecordedCode:
    """Runnable code, and whether it equals the code that the run recorded, by the digest of its files."""

    root: Path  # the project's folder in the repository
    origin: str  # in words
    same: bool
    why: str = ""  # it is not the same


def lay_out(root: Path, tags: Mapping[str, str], diff: bytes, why_no_diff: str, into: Path) -> RecordedCode:
    """Return the code that `tags` name: checked out into `into`, or in `root` if git does not have it.

    The repository is only read: the commit is checked out with a separate index, so a kill leaves nothing in it.

    Args:
        root: The project's current folder.
        diff: The run's `code.diff`; empty if there is none.
        why_no_diff: Reason for its absence although files had been changed.
        into: An empty folder.
    """
    expected = tags.get("files_digest", "")
    present = files_digest(root) == expected
    version = tags.get("code_version", "")
    commit, _, changed = version.partition("+")
    if version.startswith("files:") or not version:
        return _as_they_are(root, present, "git has no commit of it")
    top = _top(root)
    if top is None or not _write_out(top, commit, into):
        return _as_they_are(root, present, f"git commit {commit[:12]} is not in the repository of {root}")
    if diff and not _apply(into, diff):
        return _as_they_are(root, present, f"the run's code.diff does not apply to git commit {commit[:12]}")
    folder = into / root.resolve().relative_to(top)
    if folder.is_dir() and files_digest(folder) == expected:
        return RecordedCode(folder, f"git commit {commit}{' with code.diff' if diff else ''}", True)
    if present:
        return RecordedCode(root, "the current files, which match the recorded ones", True)
    why = (
        "files that git ignores or does not track were used, or are missing"
        if diff or not changed
        else why_no_diff or "no code.diff was stored"
    )
    if not (folder / "mainspring.toml").is_file():
        return _as_they_are(root, present, why)
    return RecordedCode(folder, f"git commit {commit}", False, why)


def _as_they_are(root: Path, same: bool, why: str) -> RecordedCode:
    return RecordedCode(root, "the current files", same, "" if same else f"{why}, and the files have changed since")


def _top(root: Path) -> Path | None:
    git = shutil.which("git")
    found = run_git(git, root, "rev-parse", "--show-toplevel") if git else None
    return Path(found.decode(errors="surrogateescape").rstrip("\n")).resolve() if found else None


def _write_out(top: Path, commit: str, into: Path) -> bool:
    git = shutil.which("git")
    if git is None or run_git(git, top, "cat-file", "-e", f"{commit}^{{commit}}") is None:
        return False
    index = for_child({_INDEX: str(into.with_name("index"))})
    return (
        run_git(git, top, "read-tree", commit, environment=index) is not None
        and run_git(git, top, "checkout-index", "--all", f"--prefix={into}/", environment=index) is not None
    )


def _apply(into: Path, diff: bytes) -> bool:
    git = shutil.which("git")
    if git is None:
        return False
    if b"diff --git" not in diff:  # it only names files whose content was not stored
        return True
    # no surrounding repository may decide which files belong to it
    environment = for_child({"GIT_CEILING_DIRECTORIES": str(into.parent)})
    command = [git, "apply", "--whitespace=nowarn", "-"]
    return (
        subprocess.run(command, input=diff, cwd=into, env=environment, capture_output=True, check=False).returncode == 0
    )
