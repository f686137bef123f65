"""What `doctor` and `status` say of streams: each problem with the value and the fix."""

from __future__ import annotations

from pathlib import Path

import pytest

import mainspring as ms
from kit.console.flights import Project, declared
from kit.console.streaming import BEHIND, FAILS, RUNS, STOPPED, streaming
from mainspring.core.errors import Unavailable
from mainspring.data.adapters.log_memory import MemoryLog
from mainspring.operations.doctor import examine
from mainspring.operations.status import status


class Away(MemoryLog):
    """A log that does not respond."""

    def topics(self) -> list[str]:
        raise Unavailable("kafka-1:9092 did not answer within 10 s.", fix="check that the broker runs.")


def streams(log: MemoryLog, **changed: str) -> Project:
    source = ms.Source("payments", schema={"card": ms.String}, event_time="at")
    return Project(
        definitions=declared(
            sources={"payments": source}, streams={"payments": ms.Stream(source, topic="paid", **changed)}
        ),
        streams=log,
    )


def test_a_broker_that_is_away_is_one_problem() -> None:
    (finding,) = examine(streams(Away()), only="streams")
    assert (finding.ok, finding.fix) == (False, "check that the broker runs.")
    assert "kafka-1:9092" in finding.detail


def test_a_topic_that_is_not_there_is_named_with_the_command_that_makes_it() -> None:
    (finding,) = examine(streams(MemoryLog()), only="streams")
    assert finding.detail == "stream payments: The log has no topic 'paid'."
    assert "mainspring topics create paid" in finding.fix
    log = MemoryLog()
    log.create("paid")
    (finding,) = examine(streams(log), only="streams")
    assert finding.ok
    assert examine(Project(), only="streams") == []


@pytest.mark.parametrize("content", [None, "{"])
def test_a_schema_file_that_cannot_be_read_is_named(tmp_path: Path, content: str | None) -> None:
    log = MemoryLog()
    log.create("paid")
    path = tmp_path / "paid.avsc"
    if content is not None:
        path.write_text(content)
    (finding,) = examine(streams(log, format="avro", schema=str(path)), only="streams")
    assert (finding.ok, str(path) in finding.detail, bool(finding.fix)) == (False, True, True)


def test_status_names_the_streams() -> None:
    found = {each.stream: each for each in status(streaming()).streams}
    assert {name: each.state for name, each in found.items()} == {
        RUNS: "running", BEHIND: "behind", FAILS: "failing", STOPPED: "stopped",
    }  # fmt: skip
    assert (found[BEHIND].lag, found[BEHIND].lag_s) == (4321, 412.0)
    assert "no topic" in found[FAILS].problem
