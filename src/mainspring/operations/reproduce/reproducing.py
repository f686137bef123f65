"""`mainspring reproduce`: repeat a recorded training and compare the results.

The same code (the recorded commit with its uncommitted changes), the same data (the pinned versions), the same seed and
time range, in a new process. Nothing is registered; the new run is not stored among the project's runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mainspring.core.errors import (
    Corrupt,
    Invalid,
    InvalidData,
    MainspringError,
    NotConvertible,
    NotFound,
    StorageFull,
)
from mainspring.operations.reproduce.recorded_code import RecordedCode, lay_out
from mainspring.project import Project
from mainspring.training.runs.differences import Difference, Outcome, differences, outcome

if TYPE_CHECKING:
    from mainspring.registry.model import Bundle, RunRecord

Progress = Callable[[str, float], None]
_KINDS = {kind.__name__: kind for kind in (Invalid, InvalidData, NotFound, Corrupt, StorageFull, NotConvertible)}
_NEEDED = ("dataset_commit", "code_version", "seed")


@dataclass(frozen=True, slots=True)
class Reproduction:
    """A reproduced run. `same` compares the results; code and environment explain differences."""

    run_id: str
    model: str
    same: bool
    code: str  # which was run, in words
    code_same: bool
    code_why: str
    dataset_commit: str
    seed: list[Difference]
    environment: list[Difference]  # Python, platform, packages
    outcome: Outcome
    notes: list[str] = field(default_factory=list)


def reproduce(project: Project, run_id: str, *, progress: Progress | None = None) -> Reproduction:
    """Repeat a finished training and compare parameters, metrics and predictions.

    Raises:
        NotFound: There is no such run, or the data of its dataset commit was vacuumed.
        Invalid: The run is not a finished training of a declared model.
        MainspringError: It could not be trained again; the message has the reason.
    """
    run = _run(project, run_id)
    missing = [name for name in _NEEDED if name not in run.tags]
    if run.status != "FINISHED" or missing:
        why = f"is {run.status}" if run.status != "FINISHED" else f"does not record its {', '.join(missing)}"
        raise Invalid(
            f"Run {run_id} of {run.model} {why}, so it cannot be reproduced.",
            fix=f"choose a finished training: `mainspring runs {run.model}`.",
        )
    files = project.tracking.artefacts(run_id)
    diff = project.tracking.artefact(run_id, "code.diff") if "code.diff" in files else b""
    with tempfile.TemporaryDirectory(prefix="mainspring-reproduce-") as folder:
        into = Path(folder)
        (into / "code").mkdir()
        code = lay_out(project.settings.root, run.tags, diff, run.tags.get("code_diff", ""), into / "code")
        digest, again_id = _again(project, run, code, into, progress or (lambda _stage, _share: None))
        return _compared(project, run, code, into, digest, again_id)


def _run(project: Project, run_id: str) -> RunRecord:
    from mainspring.registry.searching import RunQuery

    try:
        return project.tracking.get(run_id)
    except NotFound as error:
        near = [run.id for run in project.run_search.search(RunQuery(words=(run_id,))).runs]
        matching = [candidate for candidate in near if candidate.startswith(run_id)]
        if len(matching) != 1:
            raise
        raise NotFound(error.what, fix=f"did you mean {matching[0]}?") from None


def _compared(
    project: Project, run: RunRecord, code: RecordedCode, into: Path, digest: str, again_id: str
) -> Reproduction:
    from mainspring.features.warehouse.reading import ADDRESS, AS_OF, NO_VERSION
    from mainspring.project.scratch import scratch_bundles, scratch_tracking
    from mainspring.registry.runs import LEFT, PROCESSES
    from mainspring.training.runs.provenance import CODE_CHANGED

    tracking = scratch_tracking(into)
    again = tracking.get(again_id)
    bundle, notes = _bundle(project, run)
    if PROCESSES in again.tags:
        notes.append(f"trained by {again.tags[PROCESSES]} processes, as the run was")
    if LEFT in run.tags:
        notes.append(f"the run lost processes and ended with {run.tags[LEFT]}: its weights are equal within rounding")
    if CODE_CHANGED in run.tags:
        notes.append(
            f"the exact code is unknown, because files changed after they were imported: {run.tags[CODE_CHANGED]}"
        )
    if run.tags.get(AS_OF) == NO_VERSION:
        notes.append(f"the tables of {run.tags[ADDRESS]} have no versions: their rows were read as they are now")
    found = outcome(run, again, bundle, scratch_bundles(into, project).load(digest))
    environment = differences(
        _environment(project.tracking.artefact(run.id, "environment.json")),
        _environment(tracking.artefact(again_id, "environment.json")),
    )
    tracking.close()
    return Reproduction(
        run_id=run.id,
        model=run.model,
        same=found.same,
        code=code.origin,
        code_same=code.same,
        code_why=code.why,
        dataset_commit=run.tags["dataset_commit"],
        seed=differences({"seed": run.tags["seed"]}, {"seed": again.tags["seed"]}),
        environment=environment,
        outcome=found,
        notes=notes,
    )


def _bundle(project: Project, run: RunRecord) -> tuple[Bundle | None, list[str]]:
    digest = run.params.get("digest")
    if digest is None:
        return None, ["the run produced no bundle: predictions are not compared"]
    try:
        return project.bundles.load(digest), []
    except NotFound:
        return None, [f"the run's bundle {digest[:12]} was deleted: predictions are not compared"]


def _environment(content: bytes) -> dict[str, str]:
    found: Mapping[str, Any] = msgspec.json.decode(content)
    flat = {name: str(value) for name, value in found.items() if name != "packages"}
    return {**flat, **found.get("packages", {})}


def _again(project: Project, run: RunRecord, code: RecordedCode, into: Path, progress: Progress) -> tuple[str, str]:
    """Train in a child process, which ends with this one; return the bundle's digest and the run's id."""
    from mainspring.operations.reproduce.child import ERROR, RESULT

    hold, hold_end = os.pipe()
    tell, tell_end = os.pipe()
    command = [sys.executable, "-m", "mainspring.processes.child", str(hold), "mainspring.operations.reproduce.child"]
    command += ["--project", str(project.settings.root), "--profile", project.settings.profile]
    command += ["--code", str(code.root), "--run", run.id, "--into", str(into), "--tell", str(tell_end)]
    with (into / "output").open("wb") as output:
        child = subprocess.Popen(
            command, cwd=code.root, stdout=output, stderr=output, stdin=subprocess.DEVNULL, pass_fds=(hold, tell_end)
        )
    os.close(hold)
    os.close(tell_end)
    try:
        with os.fdopen(tell, "rb") as lines:
            for line in lines:
                stage, share = msgspec.json.decode(line)
                progress(stage, share)
        child.wait()
    finally:
        os.close(hold_end)
        with suppress(ProcessLookupError):
            child.kill()
        child.wait()
    if (into / ERROR).exists():
        raise _told((into / ERROR).read_bytes(), run, code)
    if not (into / RESULT).exists():
        output_lines = (into / "output").read_text(errors="replace").strip().splitlines()
        raise MainspringError(
            f"Run {run.id} could not be reproduced: the process ended with {child.returncode}: "
            f"{output_lines[-1] if output_lines else 'it said nothing'}",
            fix="run `mainspring train` to check that the project can be trained at all.",
        )
    result = msgspec.json.decode((into / RESULT).read_bytes())
    return result["digest"], result["run_id"]


def _told(content: bytes, run: RunRecord, code: RecordedCode) -> MainspringError:
    """Return the child's error with its kind."""
    error = msgspec.json.decode(content)
    what = f"Run {run.id} could not be reproduced with {code.origin}: {error['what']}"
    kind: type[MainspringError] = _KINDS.get(error["kind"], MainspringError)
    return kind(what, fix=error["fix"])
