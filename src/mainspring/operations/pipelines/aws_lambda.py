"""Lambda function of a pipeline that was exported to Step Functions: its handler is `...aws_lambda.handler`.

The function's folder is the project's. A task that waits for an approval is answered at once if the step is skipped;
else its token is logged, and a person answers: `aws stepfunctions send-task-success --task-output '{"result": null}'`.
"""

from __future__ import annotations

import json
import logging
from functools import cache
from pathlib import Path
from typing import Any

from mainspring.operations.pipelines.outside import answer
from mainspring.project import Project, open_project
from mainspring.project.settings import find_project, load_settings

log = logging.getLogger("mainspring")


@cache
def _project() -> Project:
    return open_project(load_settings(find_project(Path.cwd())))


def handler(event: Any, _context: object) -> Any:
    """Run a step and return its outcome."""
    outcome = answer(_project(), event)
    if "token" in event:
        if "skipped" in outcome:
            import boto3  # part of Lambda's runtime

            boto3.client("stepfunctions").send_task_success(taskToken=event["token"], output=json.dumps(outcome))
        else:
            log.warning("Step %s waits for approval; its task token is %s", event["step"], event["token"])
    return outcome
