"""Repetition of a recorded training, in a process that has imported nothing of the project; see `reproducing`.

`python -m mainspring.operations.reproduce.child --project ROOT --code CODE --run RUN --into FOLDER --tell FD`
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from mainspring.core.errors import Invalid, MainspringError
from mainspring.core.time import parse_instant
from mainspring.data.without import read
from mainspring.features.warehouse.reading import ADDRESS, AS_OF, ENGINE, NO_VERSION, WarehouseRead
from mainspring.operations.features.engines import LAKE, WAREHOUSE, stored_read
from mainspring.project import Project, open_project
from mainspring.project.scratch import Scratch, scratch_trainer, with_code
from mainspring.project.settings import child_arguments, load_settings
from mainspring.registry.model import RunRecord
from mainspring.registry.runs import PROCESSES
from mainspring.training.distribution import Distributed
from mainspring.training.model import Model
from mainspring.training.sets.assemble import WITHOUT
from mainspring.training.space import Chosen

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
        project = open_project(with_code(settings, chosen.code))
        run = open_project(settings).tracking.get(chosen.run)
        result = _train(project, run, Scratch(chosen.into, chosen.project), chosen.tell)
    except MainspringError as error:
        said = {"kind": type(error).__name__, "what": error.what, "fix": error.fix, "retryable": error.retryable}
        (chosen.into / ERROR).write_bytes(msgspec.json.encode(said))
        return 1
    (chosen.into / RESULT).write_bytes(msgspec.json.encode(result))
    return 0


def _train(project: Project, run: RunRecord, scratch: Scratch, tell: int) -> dict[str, str]:
    model = _as_it_was(project.definitions.model(run.model), run)
    given: dict[str, Any] = {
        "since": recorded_instant(run.params.get("since")),
        "until": recorded_instant(run.params.get("until")),
        "commit": project.snapshots.get(run.tags["dataset_commit"]),
        "without": [read(each) for each in msgspec.json.decode(run.params.get(WITHOUT, "[]"), type=list[str])],
        "progress": lambda stage, share: _say(tell, stage, share),
    }
    processes = int(run.tags.get(PROCESSES, "1"))
    if processes == 1:
        stored = stored_as_recorded(project, run)
        report = scratch_trainer(project, scratch.folder).train(model, stored=stored, **given)
    else:
        from mainspring.operations.distributed.launching import train_in_processes

        declared = replace(model.distributed or Distributed(), processes=processes, machines=1)
        chosen = replace(model, distributed=declared)
        report = train_in_processes(project, chosen, runner="local", scratch=scratch, **given)
    return {"run_id": report.run_id, "digest": report.digest}


def stored_as_recorded(project: Project, run: RunRecord) -> WarehouseRead | None:
    """Return the read of the run's features where it read them: in the same warehouse, in the versions of then."""
    if run.tags.get(ENGINE) != WAREHOUSE:
        return stored_read(project, LAKE)
    as_of = run.tags.get(AS_OF, NO_VERSION)
    versions = None if as_of == NO_VERSION else int(as_of)
    stored = stored_read(project, WAREHOUSE, as_of=versions, versioned=versions is not None)
    if stored is not None and stored.name != run.tags[ADDRESS]:
        raise Invalid(
            f"Run {run.id} read its features in {run.tags[ADDRESS]}, and the profile's warehouse is {stored.name}.",
            fix="reproduce it with a profile that names that warehouse: --profile NAME.",
        )
    return stored


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
