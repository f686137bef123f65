"""Server-sent events: who waits is told of a change, and nobody waits for ever."""

import asyncio

import pytest

from kit.console.client import Client
from kit.console.flights import NOW, Project, populated
from mainspring.console.app import create_app
from mainspring.console.live_events import Changes, mark_of
from mainspring.core.errors import Unavailable
from mainspring.security.model import AuditEvent, KeyScope


class Marks:
    """Marks to read one after another; the last one stays. `read` counts the readings."""

    def __init__(self, *marks: str | Exception) -> None:
        self.marks = list(marks)
        self.read = 0

    def __call__(self) -> str:
        self.read += 1
        found = self.marks.pop(0) if len(self.marks) > 1 else self.marks[0]
        if isinstance(found, Exception):
            raise found
        return found


def test_all_who_wait_are_told_by_one_reader() -> None:
    marks = Marks("a")

    async def go() -> list[str | None]:
        changes = Changes(marks, every_s=0.001)
        tasks = [asyncio.create_task(changes.after("a", 20.0)) for _ in range(3)]
        while changes.waiting < 3:
            await asyncio.sleep(0.001)
        before, marks.marks = marks.read, ["b"]
        told = await asyncio.gather(*tasks)
        assert marks.read - before <= 2  # one may have been under way
        return told

    assert asyncio.run(go()) == ["b", "b", "b"]


def test_who_is_behind_does_not_wait() -> None:
    assert asyncio.run(Changes(Marks("b")).after("a")) == "b"
    assert asyncio.run(Changes(Marks("b")).after("")) == "b"


def test_without_a_change_the_wait_ends_and_nobody_reads_on() -> None:
    marks = Marks("a")

    async def go() -> int:
        changes = Changes(marks, every_s=0.001)
        assert await changes.after("a", 0.02) == "a"
        await asyncio.sleep(0.01)
        read = marks.read
        await asyncio.sleep(0.03)
        return marks.read - read

    assert asyncio.run(go()) == 0


def test_an_unreadable_state_is_read_again() -> None:
    marks = Marks("a", Unavailable("The catalog is away."), "b")
    assert asyncio.run(Changes(marks, every_s=0.001).after("a", 20.0)) == "b"


def test_too_many_and_the_end_let_nobody_wait() -> None:
    async def go() -> None:
        changes = Changes(Marks("a"), every_s=0.001, most=1)
        first = asyncio.create_task(changes.after("a", 20.0))
        while not changes.waiting:
            await asyncio.sleep(0.001)
        assert await changes.after("a", 20.0) is None
        changes.close()
        assert await first is None
        assert await changes.after("a", 20.0) is None

    asyncio.run(go())


@pytest.fixture
def project() -> Project:
    return populated()


def test_the_stream_names_the_mark_and_then_what_is_new(project: Project) -> None:
    viewer = Client(create_app(project), project.key(KeyScope.VIEW))
    first = viewer.get("/events")
    assert first.headers["content-type"].startswith("text/event-stream")
    assert "event: start" in first.text
    known = next(line for line in first.text.splitlines() if line.startswith("id: ")).removeprefix("id: ")
    assert known == mark_of(project)
    project.audit.append([AuditEvent(NOW, "ana", "promote", "model/late-arrival")])
    then = viewer.get("/events", headers={"last-event-id": known})
    assert "event: change" in then.text
    assert f"id: {mark_of(project)}" in then.text
