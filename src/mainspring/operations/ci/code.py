"""Stages of the code: the commit with its definitions, and the tests of data and code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from mainspring.core.environment import for_child
from mainspring.core.errors import MainspringError
from mainspring.data.model import QUARANTINE_SUFFIX
from mainspring.operations.apply import apply
from mainspring.operations.ci.model import Check, failed, passed, warned
from mainspring.operations.features.verifying import verify
from mainspring.project import Project
from mainspring.training.model import Model
from mainspring.training.runs.provenance import code_version

_TESTS_S = 3600.0
_LAST_BYTES = 65_536  # of what tests print
_SHOWN = 3
_SAMPLE = 50  # (entity, instant) pairs of each view
_QUARANTINED = 0.05  # share of a source's rows from which on it is a warning


def commit_checks(project: Project, broken: MainspringError | None) -> Iterator[Check]:
    """Check the commit, the definitions, and what they would change.

    Args:
        broken: Why the definitions could not be loaded.
    """
    version = code_version(project.settings.root)
    if not version:
        yield warned("commit", "the folder is not under version control", "run `git init` and commit the project")
    elif version.endswith("+changed"):
        yield warned("commit", f"{version.removesuffix('+changed')[:12]}, with uncommitted changes", "commit them")
    else:
        yield passed("commit", version[:12])
    if broken is not None:
        yield failed("definitions", broken.what, broken.fix or "")
        return
    changes, contents = apply(project, dry_run=True)
    yield passed("definitions", f"{len(contents)} are consistent")
    told = ", ".join(f"{change.sign}{change.kind} {change.name}" for change in changes[:_SHOWN])
    more = f" and {len(changes) - _SHOWN} more" if len(changes) > _SHOWN else ""
    yield passed("changes", f"{told}{more}" if changes else "none against what is applied")


def test_checks(project: Project, models: Sequence[Model]) -> Iterator[Check]:
    """Check the data that the models read, the equality of the features' two reads, and the project's own tests."""
    sources = {group.source.name for model in models for group in model.features if hasattr(group, "source")}
    sources |= {label.source.name for model in models for label in model.labels}
    sources |= {model.observations.source.name for model in models}
    sources |= {consent.source.name for model in models if (consent := model.observations.consent) is not None}
    missing = [name for name in sorted(sources) if project.lake.version(name) is None]
    if missing:
        yield failed(
            "data",
            f"{', '.join(missing)}: no data",
            f"ingest them: `mainspring ingest {missing[0]} FILE`, or name a profile that has data",
        )
        return
    yield from (_quality(project, name) for name in sorted(sources))
    for model in models:
        yield _features(project, model)
    yield own_tests(project.settings.root)


def _quality(project: Project, source: str) -> Check:
    rows = project.lake.describe(source).rows
    quarantine = f"{source}{QUARANTINE_SUFFIX}"
    refused = 0 if project.lake.version(quarantine) is None else project.lake.describe(quarantine).rows
    share = refused / max(1, rows + refused)
    detail = f"{rows:,} rows, {refused:,} in quarantine ({share:.1%})"
    if share > _QUARANTINED:
        return warned(f"data of {source}", detail, f"see them: `mainspring data quarantine {source}`")
    return passed(f"data of {source}", detail)


def _features(project: Project, model: Model) -> Check:
    name = "features are the same offline and online"
    try:
        found = verify(project, model.name, sample=_SAMPLE)
    except MainspringError as error:
        return failed(name, error.what, error.fix or "", model=model.name)
    wrong = [mismatch for each in found for mismatch in each.mismatches]
    values = sum(each.recomputed + each.online for each in found)
    if wrong:
        detail = f"{len(wrong)} of {values:,} values differ: {wrong[0]}"
        return failed(name, detail, f"run `mainspring features verify {model.name}`", model=model.name)
    return passed(name, f"{values:,} values compared with the brute-force read", model=model.name)


def own_tests(root: Path, *, longest_s: float = _TESTS_S) -> Check:
    """Run the project's own tests with pytest, in a process group that is killed if it does not end in time."""
    from mainspring.operations.advise.facts import test_files

    files = test_files(root)
    if not files:
        return warned("own tests", "the project has no test file", "add test_*.py: `assert` what its functions return")
    if find_spec("pytest") is None:
        return failed("own tests", f"{len(files)} test files, and pytest is not installed", "run `pip install pytest`")
    path = os.pathsep.join(filter(None, [str(root), *sys.path]))
    with tempfile.TemporaryFile() as printed:  # not a pipe: a process that tests leave behind may keep it open
        running = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", *map(str, files)],
            cwd=root,
            env=for_child({"PYTHONPATH": path}),
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code: int | None = running.wait(longest_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with suppress(ProcessLookupError, PermissionError):  # the group ends with its last process
                os.killpg(running.pid, signal.SIGKILL)
            running.wait()
        printed.seek(max(0, printed.seek(0, os.SEEK_END) - _LAST_BYTES))
        lines = [line for line in printed.read().decode("utf-8", "replace").splitlines() if line.strip()]
    if code is None:
        return failed("own tests", f"they did not end within {longest_s / 60:.0f} minutes", "run `python -m pytest`")
    if code:
        broken = [line for line in lines if line.startswith(("FAILED", "ERROR"))][:_SHOWN]
        told = "; ".join(broken) or "; ".join(lines[-_SHOWN:]) or f"pytest ended with the code {code}"
        return failed("own tests", told, "run `python -m pytest`")
    return passed("own tests", lines[-1] if lines else "passed")
