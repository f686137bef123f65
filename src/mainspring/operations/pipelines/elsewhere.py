"""A step as another machine calls it: from a request of `deploy.engines.asking` to its answer.

`python -m mainspring.operations.pipelines.elsewhere REQUEST...` is the command of a container. The request is JSON in
base64, in as many arguments as it needs. The answer is the last line of the output, after the request's `mark`.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from mainspring.core.errors import Invalid, MainspringError
from mainspring.cost.paying import Payers, paid_by
from mainspring.cost.usage import STEP, Subject
from mainspring.jobs.logs import JobLog
from mainspring.jobs.model import JobHeld
from mainspring.jobs.pipelines.graph import Node
from mainspring.operations.jobs.handlers import put_off
from mainspring.operations.pipelines.calling import LoneRun, call_step
from mainspring.project import open_project
from mainspring.project.settings import load_settings
from mainspring.registry.processes import started_by


def answer(request: str) -> str:
    """Call the step in this process and return the answer. Its output goes to the request's `log`, if there is one."""
    asked = json.loads(request)
    if "log" not in asked:
        return _called(asked)
    with _written_to(Path(asked["log"])):
        return _called(asked)


def _called(asked: Mapping[str, Any]) -> str:
    try:
        with closing(open_project(load_settings(Path(asked["root"]), asked["profile"]))) as project:
            run = LoneRun(asked["inputs"], asked["id"])
            paying = Payers(tuple(asked.get("teams", ())), asked.get("teams_why", ""))
            step = Subject(STEP, f"{asked.get('pipeline', '')}/{asked['step'].partition('[')[0]}", key=asked["by"])
            with started_by(asked["by"]), paid_by(paying), project.metering.of(step), put_off(run.id):
                result = call_step(project, Node(asked["step"], function=asked["function"]), asked["inputs"], run)
            return json.dumps({"done": result})
    except JobHeld as held:
        return json.dumps({"held": held.note, "again_after_us": held.again_after_us})
    except MainspringError as error:
        sys.stderr.write(f"{error}\n")
        return json.dumps({"failed": str(error), "final": isinstance(error, Invalid)})
    except BaseException as error:
        traceback.print_exc()
        return json.dumps({"failed": f"{type(error).__name__}: {error}", "final": False})
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


@contextmanager
def _written_to(path: Path) -> Iterator[None]:
    """Copy what this process and its children write into a bounded log, instead of to where it went before."""
    sys.stdout.flush()
    sys.stderr.flush()
    before = [os.dup(each) for each in (1, 2)]
    reading, writing = os.pipe()
    log = JobLog(reading)
    log.to(path)
    for each in (1, 2):
        os.dup2(writing, each)
    os.close(writing)
    try:
        yield
    finally:
        for each, old in zip((1, 2), before, strict=True):
            os.dup2(old, each)
            os.close(old)
        log.finish()


def main() -> int:
    """Answer the request of the command's arguments. Return 0: a step that failed has answered as well."""
    request = base64.b64decode("".join(sys.argv[1:])).decode()
    told = answer(request)
    sys.stdout.write(f"\n{json.loads(request)['mark']} {told}\n")
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
