"""Child process that runs trials for `operations.search.workers`, over a protocol of JSON lines.

`python -m mainspring.operations.search.child --project ROOT --model MODEL --rows FOLDER --hear FD --tell FD`
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import IO, Any

from mainspring.core.errors import MainspringError
from mainspring.project import open_project
from mainspring.project.settings import child_arguments, load_settings


def main() -> int:
    """Run requested trials until the input ends. Return the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal interrupts all processes; the parent ends this one
    parser = child_arguments("operations.search.child")
    parser.add_argument("--model", required=True)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--hear", type=int, required=True)
    parser.add_argument("--tell", type=int, required=True)
    chosen = parser.parse_args()
    with os.fdopen(chosen.hear, "r") as hear, os.fdopen(chosen.tell, "w") as tell:
        try:
            _serve(chosen, hear, tell)
        except MainspringError as error:
            _say(tell, broken=error.what, fix=error.fix)
            return 1
    return 0


def _serve(chosen: Any, hear: IO[str], tell: IO[str]) -> None:
    from mainspring.training.search.trials import read_rows, try_params

    project = open_project(load_settings(chosen.project, chosen.profile))
    model = project.definitions.model(chosen.model)
    data = read_rows(model, chosen.rows)

    def report(value: float, step: int) -> bool:
        _say(tell, value=value, step=step)
        return bool(json.loads(hear.readline())["stop"])

    for line in hear:
        asked = json.loads(line)
        run_id = asked["run_id"]
        ended = try_params(model, data, asked["params"], project.tracking, run_id, project.wall, report)
        _say(tell, state=ended.state, value=ended.value, reason=ended.reason)


def _say(tell: IO[str], **what: Any) -> None:
    tell.write(json.dumps(what) + "\n")
    tell.flush()


if __name__ == "__main__":
    sys.exit(main())
