"""Looks at gateway processes that are killed: run by test_sampling_kill.py, not a test itself.

`sampling_victim.py FOLDER` counts requests and looks, each time in a child that kills itself (SIGKILL) one statement of
the catalog later, until one is not killed; and says as one line of JSON what was counted and what is stored.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import sqlalchemy as sa

from kit.slots import answering
from mainspring.core.time import DAY
from mainspring.operations.service.sampling import Sampler
from mainspring.project import Project, open_project
from mainspring.project.definitions.model import Definitions
from mainspring.project.settings import load_settings
from mainspring.serving.plane.metrics import Metrics


def opened(root: Path) -> Project:
    return Project(load_settings(root, environment={}), definitions=Definitions({}, {}, {}, {}, (), {}, {}, {}))


def look(root: Path, statements: int) -> None:
    """Look, and die before one statement more than `statements`."""
    project, left = opened(root), [statements]
    assert project.service

    @sa.event.listens_for(project.engine, "before_cursor_execute")
    def count(*_: object) -> None:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    @sa.event.listens_for(project.engine, "commit")
    def commit(_: object) -> None:
        count()

    Sampler(project).look()


def main(root: Path) -> None:
    (root / "mainspring.toml").write_text('name = "small"\n')
    project = open_project(load_settings(root, environment={}))
    assert project.service.samples(0, 1) == []
    project.close()
    metrics, counted, kills = Metrics(ready=lambda: True, served=dict, waiting=dict, refused=dict), 0, 0
    with answering(project.settings.state, metrics.text):
        while True:
            metrics.of("flights").requests[200] += 10
            counted += 10
            child = os.fork()
            if not child:
                look(root, kills)
                os._exit(0)
            _, status = os.waitpid(child, 0)
            if not os.WIFSIGNALED(status):
                break
            kills += 1
    project = opened(root)
    stored = project.service.samples(0, project.wall.now() + DAY)
    found = [each.counts.get("requests 200", 0.0) for each in stored if each.subject == "flights"]
    print(json.dumps({"kills": kills, "counted": counted, "stored": found, "ended": status}))


main(Path(sys.argv[1]))
