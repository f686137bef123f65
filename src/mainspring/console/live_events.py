"""Server-sent events: a page learns within a second or two that something it may show has changed.

An answer ends with its event, and the browser asks again by itself, naming the last event that it has (the polling that
the standard provides for: https://html.spec.whatwg.org/multipage/server-sent-events.html). So no answer is endless, a
revoked key ends the events at the next request, and proxies hold nothing back.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from typing import Annotated

import msgspec
from fastapi import APIRouter, Header
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from mainspring.core.errors import MainspringError
from mainspring.jobs.model import Status
from mainspring.project import Project
from mainspring.security.model import AuditFilter

_WAIT_S = 25.0  # of one request; proxies end silent ones after 30 seconds and more
_SOON_MS, _LATER_MS = 500, 10_000  # until the browser asks again
_WAITING = 64  # requests at once; a further one is told to ask later
_RUNNING = 50  # jobs whose progress is looked at
_log = logging.getLogger(__name__)


def mark_of(project: Project) -> str:
    """Return a text that changes with what the pages show: routes, jobs, rollouts, incidents, windows, audited acts."""
    newest = project.audit.search(AuditFilter(), limit=1)
    running = project.jobs.find(statuses=[Status.RUNNING], limit=_RUNNING)
    state = (
        project.routes.revision(),
        newest[0].number if newest else -1,
        sorted(project.jobs.counts().items()),
        [(job.id, job.attempts, job.progress) for job in running],
        [(each.id, each.revision) for each in project.rollouts.live()],
        [(each.id, each.revision) for each in project.incidents.open()],
    )
    return hashlib.blake2b(msgspec.json.encode(state), digest_size=12).hexdigest()


class Changes:
    """Wakes those who wait for another mark. One task reads the mark, however many wait, and only while somebody does.

    Args:
        mark: Returns the current mark; called in a thread.
        every_s: Seconds between two readings.
        most: How many may wait at once.
    """

    def __init__(self, mark: Callable[[], str], *, every_s: float = 1.0, most: int = _WAITING) -> None:
        self._mark = mark
        self._every_s = every_s
        self._most = most
        self._current = ""
        self._waiting: set[asyncio.Future[None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Number of those who wait."""
        return len(self._waiting)

    async def after(self, known: str, wait_s: float = _WAIT_S) -> str | None:
        """Return the mark once it is another than `known`, or after `wait_s`; `None` if too many wait, or at the end.

        Raises:
            MainspringError: The state cannot be read.
        """
        if self._ended.is_set() or len(self._waiting) >= self._most:
            return None
        current = await run_in_threadpool(self._mark)
        if current != known:
            return current
        self._current = current
        changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(changed)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._watch())
        try:
            await asyncio.wait([changed], timeout=wait_s)
        finally:
            self._waiting.discard(changed)
        return None if self._ended.is_set() else self._current

    def close(self) -> None:
        """Let all go who wait; nobody waits any more."""
        self._ended.set()
        self._wake()

    def _wake(self) -> None:
        for each in self._waiting:
            if not each.done():
                each.set_result(None)

    async def _watch(self) -> None:
        while self._waiting and not self._ended.is_set():
            await asyncio.sleep(self._every_s)
            try:
                mark = await run_in_threadpool(self._mark)
            except MainspringError as error:
                _log.info("changes cannot be read: %s", error)
                continue
            if mark != self._current:
                self._current = mark
                self._wake()


def add_events(router: APIRouter, changes: Changes) -> None:
    """Add `/events`."""

    @router.get("/events")
    async def send_event(last: Annotated[str, Header(alias="last-event-id", max_length=100)] = "") -> Response:
        mark = await changes.after(last)
        if mark is None:
            return _stream(f"retry: {_LATER_MS}\n\n")
        if mark == last:
            return _stream(f"retry: {_SOON_MS}\n: nothing has changed\n\n")
        kind = "change" if last else "start"
        return _stream(f"retry: {_SOON_MS}\nid: {mark}\nevent: {kind}\ndata: {{}}\n\n")


def _stream(text: str) -> Response:
    return Response(text, media_type="text/event-stream", headers={"cache-control": "no-store"})
