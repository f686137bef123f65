"""Repetition of a recorded training, in a process that has imported nothing of the project; see `reproducing`.

`python -m mainspring.operations.reproduce.child --project ROOT --code CODE --run RUN --into FOLDER --tell FD`
"""

from __future__ import annotations

import os
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import msgspec

from mainspring.core.errors import Invalid, MainspringError
from mainspring.core.settings import PROJECT_FILE
from mainspring.core.time import parse_instant
from mainspring.data.without import read
from mainspring.project import Project, open_project
from mainspring.project.scratch import scratch_bundles, scratch_tracking, scratch_versions
from mainspring.project.settings import child_arguments, load_settings
from mainspring.registry.model import RunRecord
from mainspring.training.model import Model
from mainspring.training.sets.assemble import WITHOUT
from mainspring.training.space import Chosen
from mainspring.training.trainer import Trainer

RESULT, ERROR = "result.json", "error.json"


def main() -> int:
    """Train and write the result. Return the exit code."""
    parser = child_arguments("operations.reproduce.child")
    parser.add_argument("--code", type=Path, required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--tell", type=int, required=True)
    chosen = parser.parse_args()
    try:
        settings = load_settings(chosen.project, chosen.profile)
        recorded = tomllib.loads((chosen.code / PROJECT_FILE).read_text(encoding="utf-8"))
        modules = tuple(recorded.get("modules", settings.modules))
        project = open_project(replace(settings, root=chosen.code.resolve(), modules=modules))
        run = open_project(settings).tracking.get(chosen.run)
        result = _train(project, run, chosen.into, chosen.tell)
    except MainspringError as error:
        said = {"kind": type(error).__name__, "what": error.what, "fix": error.fix, "retryable": error.retryable}
        (chosen.into / ERROR).write_bytes(msgspec.json.encode(said))
        return 1
    (chosen.into / RESULT).write_bytes(msgspec.json.encode(result))
    return 0


def _train(project: Project, run: RunRecord, into: Path, tell: int) -> dict[str, str]:
    trainer = Trainer(
        lake=project.lake,
        snapshots=project.snapshots,
        tracking=scratch_tracking(into),
        versions=scratch_versions(),
        bundles=scratch_bundles(into, project),
        signing_key=project.signing_key,
        clock=project.wall,
        root=project.settings.root,
    )
    report = trainer.train(
        _as_it_was(project.definitions.model(run.model), run),
        since=recorded_instant(run.params.get("since")),
        until=recorded_instant(run.params.get("until")),
        commit=project.snapshots.get(run.tags["dataset_commit"]),
        without=[read(each) for each in msgspec.json.decode(run.params.get(WITHOUT, "[]"), type=list[str])],
        progress=lambda stage, share: _say(tell, stage, share),
    )
    return {"run_id": report.run_id, "digest": report.digest}


def _as_it_was(model: Model, run: RunRecord) -> Model:
    """Return the model with the parameters that its search had found at the time."""
    if model.search is None:
        return model
    params = model.search.read(run.params)
    if params is None:
        raise Invalid(f"Run {run.id} does not record the parameters that {run.model!r} was trained with.")
    return replace(model, train=Chosen(model.train, params))


def _say(tell: int, stage: str, share: float) -> None:
    os.write(tell, msgspec.json.encode([stage, share]) + b"\n")


def recorded_instant(text: str | None) -> int | None:
    """Return the bound of a training's time range, UTC epoch microseconds, from the parameter of its run."""
    # Older runs logged the number of microseconds, and "None" without a bound.
    if text is None or text == "None":
        return None
    return int(text) if text.lstrip("-").isdigit() else parse_instant(text)


if __name__ == "__main__":
    sys.exit(main())
