"""Passes of the monitor and deliveries that are killed: run by test_incidents_kill.py, not a test itself.

`incidents_victim.py FOLDER` lets a channel see a fault, then its end, and delivers the messages about it. It does so in
copies of one folder, in a child that kills itself (SIGKILL) at the next statement or commit of the catalog, or right
after a message was sent; then in a child that nobody kills. One line of JSON each time has the incidents, messages,
actions and the routes' sheds.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import sqlalchemy as sa
from monitor_victim import apart, dying

from kit.console import flights
from kit.depth import examples
from mainspring.core.locks import MemoryLocks
from mainspring.core.settings import Url
from mainspring.core.time import HOUR, MINUTE, ManualClock
from mainspring.monitoring.declaring import Monitor
from mainspring.monitoring.incidents.actions import shed
from mainspring.monitoring.incidents.model import Judged
from mainspring.monitoring.notify.declaring import webhook
from mainspring.monitoring.notify.ports import Message
from mainspring.monitoring.signals import CONTRACT, Signal
from mainspring.operations.acting import act
from mainspring.operations.notifying import Delivery
from mainspring.operations.promote import publish_routes
from mainspring.operations.watching import settle
from mainspring.project.catalog import open_catalog
from mainspring.registry.adapters.memory import MemoryVersions
from mainspring.registry.model import AliasMove

ENDPOINT = "late-arrival"
START = flights.NOW
STRIDE = examples(gate=4, deep=1)  # steps between two kills
MONITORS = {ENDPOINT: Monitor(ENDPOINT, notify=[webhook("ops")], actions=[shed(0.25, channels=[CONTRACT], lasts="1d")])}


class Inbox:
    """Appends the ids of messages to a file, as a receiver that nobody kills."""

    def __init__(self, folder: Path, step: Callable[..., None]) -> None:
        self._folder, self._step = folder, step

    def send(self, message: Message, *, within_s: float) -> None:
        with (self._folder / "received").open("a") as file:
            file.write(f"{message.id} {message.notices[0].event}\n")
        self._step()


def opened(folder: Path, at: int = START) -> flights.Project:
    """Return a project on a folder's catalog, with a champion behind its endpoint."""
    engine = open_catalog(Url(f"sqlite:///{folder / 'catalog.db'}"), MemoryLocks())
    clocks = {name: ManualClock(at) for name in ("clock", "wall")}
    definitions = replace(flights.definitions(), monitors=MONITORS)
    versions = MemoryVersions()
    versions.register(ENDPOINT, "1" * 64, "run", {}, 0)
    versions.set_alias(AliasMove(ENDPOINT, "champion", None, "1", "ana", "promote", 0))
    return flights.Project(definitions=definitions, engine=engine, versions=versions, **clocks)


def work(folder: Path, windows: int, at: int, step: Callable[..., None] = lambda *_: None) -> None:
    """Judge so many windows, of which the first has a fault, take its action, and deliver the messages."""
    project = opened(folder, at)
    sa.event.listen(project.engine, "before_cursor_execute", step)
    sa.event.listen(project.engine, "commit", step)
    spans = tuple((START + number * HOUR, START + (number + 1) * HOUR) for number in range(windows))
    fault = Signal(
        channel=CONTRACT, endpoint=ENDPOINT, statistic="nulls", column="Weather.gust", start=spans[0][0],
        end=spans[0][1], severity=3.0, page=True, detail="All are null.",
    )  # fmt: skip
    settle(project, [Judged(ENDPOINT, CONTRACT, spans, (fault,))], at)
    act(project, project.incidents.open())
    Delivery(project, lambda _: Inbox(folder, step)).run()


def say(folder: Path, killed: bool) -> None:
    project = opened(folder)
    incidents = [{"open": each.is_open, "windows": each.symptoms[0].windows} for each in project.incidents.find()]
    messages = sorted((each.event, each.state) for each in project.incidents.outgoing())
    actions = [[each.action, each.state] for of in project.incidents.find() for each in of.actions]
    sheds = [route.shed.share if route.shed else 0.0 for route in project.routes.current().values()]
    received = (folder / "received").read_text().splitlines()
    told = {"incidents": incidents, "messages": messages, "received": received, "actions": actions, "sheds": sheds}
    print(json.dumps({"killed": killed, **told}), flush=True)


def killed_at_each_step(root: Path, before: Path, windows: int, at: int) -> Path:
    """Do the work in copies of a folder, killed later each time, and then to its end; return the last one."""
    killed, number = True, -random.randint(1, STRIDE)
    folder = before
    while killed:
        number += STRIDE
        folder = root / f"windows-{windows}-step-{number}"
        shutil.copytree(before, folder)
        step = dying(number)
        killed = apart(lambda: work(folder, windows, at, step)) != 0  # noqa: B023
        apart(lambda: work(folder, windows, at + 10 * MINUTE))  # noqa: B023  (what was claimed is due again)
        apart(lambda: say(folder, killed))  # noqa: B023
    return folder


def main(root: Path) -> None:
    before = root / "before"
    before.mkdir()
    apart(lambda: publish_routes(opened(before)))
    ill = killed_at_each_step(root, before, 1, START + HOUR)
    killed_at_each_step(root, ill, 3, START + 3 * HOUR)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
