"""`mainspring topics`, and that the worker keeps the embedded log within its limits."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import mainspring as ms
from mainspring.cli.main import cli
from mainspring.core.errors import InvalidData, NotFound
from mainspring.data.streams.model import NewMessage
from mainspring.operations.topics import ListedTopic, list_topics, retain_messages, show_topic, tail_topic
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mainspring.toml").write_text('name = "clicks"\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _run(*words: str, given: str | None = None) -> Result:
    return CliRunner().invoke(cli, ["topics", *words], input=given)


def _project(root: Path, **overrides: object) -> Project:
    return open_project(load_settings(root, overrides=overrides))


def test_a_topic_is_made_filled_and_looked_into(root: Path) -> None:
    assert "topics create NAME" in _run("list").output
    assert _run("create", "clicks", "--partitions", "3").output == "clicks: 3 partitions\n"
    (root / "clicks.jsonl").write_text('{"user": "ana", "n": 1}\n\n{"user": "ana", "n": 2}\n{"user": 7, "n": 3}\n')
    assert _run("produce", "clicks", "clicks.jsonl", "--key", "user").output == "3 messages written to clicks\n"
    assert "3 messages" in _run("produce", "clicks", "-", given='{"a": 1}\n' * 3).output

    project = _project(root)
    project.streams.commit("clicks", "loader", {1: 2})
    shown = show_topic(project, "clicks", "loader")
    assert sum(int(each.next) for each in shown) == 6
    assert [each.committed for each in shown] == ["", "2", ""]
    tailed = tail_topic(project, "clicks", 6)
    assert [each.key for each in tailed[:3]] == ["ana", "ana", "7"]
    assert [json.loads(each.value or "")["n"] for each in tailed[:3]] == [1, 2, 3]
    assert len(tail_topic(project, "clicks", 2)) == 2
    assert '{"user": 7, "n": 3}' in _run("tail", "clicks").output
    assert list_topics(project) == [ListedTopic("clicks", 3)]


def test_rows_are_produced_from_python(root: Path) -> None:
    opened = ms.open(root)
    at = datetime(2026, 1, 5, 18, 30, tzinfo=UTC)
    rows = [{"user": "ana", "at": at}, {"user": 7, "at": at}, {"user": None}]
    with pytest.raises(NotFound, match="topics create clicks"):
        opened.produce("clicks", rows)
    sent = opened.produce("clicks", rows, key="user", partitions=2)
    assert (sent.messages, sum(sent.partitions.values())) == (3, 3)
    assert opened.produce("clicks", iter(rows[:1]), partitions=9).messages == 1
    assert list_topics(_project(root)) == [ListedTopic("clicks", 2)]
    tailed = tail_topic(_project(root), "clicks", 4)
    assert {(each.key, each.value) for each in tailed} == {
        ("ana", '{"user":"ana","at":"2026-01-05T18:30:00Z"}'), ("7", '{"user":7,"at":"2026-01-05T18:30:00Z"}'),
        (None, '{"user":null}'), (None, '{"user":"ana","at":"2026-01-05T18:30:00Z"}'),
    }  # fmt: skip
    with pytest.raises(InvalidData, match="Row 2 has a time without an offset: 'at'"):
        opened.produce("clicks", [{"a": 1}, {"at": at.replace(tzinfo=None)}])
    with pytest.raises(InvalidData, match="Row 1 cannot be written as JSON"):
        opened.produce("clicks", [{"a": object()}])


def test_bytes_that_are_no_text_are_shown(root: Path) -> None:
    log = _project(root).streams
    log.create("raw")
    log.produce("raw", [NewMessage(b"\xff\x00", None, (("trace", b"\xfe"),)), NewMessage(None, b"[red]")])
    tailed = tail_topic(_project(root), "raw", 10)
    assert [(each.key, each.value) for each in tailed] == [(None, "base64:/wA="), ("[red]", None)]
    assert tailed[0].headers == [("trace", "base64:/g==")]
    assert "[red]" in _run("tail", "raw").output


@pytest.mark.parametrize(
    ("words", "given", "told"),
    [
        (["show", "nope"], None, "no topic 'nope'"),
        (["tail", "nope"], None, "topics create nope"),
        (["create", "a b"], None, "'a b' is not the name of a topic"),
        (["create", "clicks", "--partitions", "0"], None, "cannot have 0 partitions"),
        (["produce", "clicks", "-"], "{}\nno\n", "Line 2 is not JSON"),
        (["produce", "clicks", "-"], "[1]\n", "Line 1 is not a JSON object"),
        (["produce", "clicks", "-", "--key", "user"], '{"a": 1}\n', "Line 1 has no field 'user'"),
    ],
)
def test_what_is_wrong_is_named(root: Path, words: list[str], given: str | None, told: str) -> None:
    _project(root).streams.create("clicks")
    done = _run(*words, given=given)
    assert done.exit_code != 0
    assert told in " ".join(done.output.split())


def test_fewer_partitions_are_refused(root: Path) -> None:
    _project(root).streams.create("clicks", 3)
    assert "3 partitions and cannot have 2" in " ".join(_run("create", "clicks", "--partitions", "2").output.split())


def test_the_worker_keeps_the_log_within_its_limits(root: Path) -> None:
    untouched = _project(root)
    assert retain_messages(untouched) == 0
    assert not untouched.settings.streams.path.exists()
    _run("create", "clicks")
    _run("produce", "clicks", "-", given='{"a": 1}\n' * 10)
    assert retain_messages(_project(root)) == 0
    assert retain_messages(_project(root, keep_messages_bytes=40)) == 5
    assert retain_messages(_project(root, keep_messages="1ms")) == 5
    assert show_topic(_project(root), "clicks")[0].first == "10"
    assert retain_messages(_project(root, streams="memory://", keep_messages="1ms")) == 0
