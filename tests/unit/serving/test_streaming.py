"""Stream endpoints against brute force, their treatment of bad messages, and their replay."""

from __future__ import annotations

import dataclasses
import io
import json
import tempfile
import threading
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fastavro
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mainspring as ms
from kit.depth import examples
from kit.stream_endpoints import (
    JSON_ROWS,
    OUT,
    SPEC,
    START,
    TOPIC,
    Alone,
    Doubling,
    Seen,
    Stage,
    endpoint,
    message,
    payments,
    rollout,
    told,
)
from kit.stream_log import all_messages
from kit.stream_oracle import MINUTE_US, brute
from mainspring.core.errors import Corrupt, Invalid, NotFound, Unavailable
from mainspring.core.time import ManualClock
from mainspring.data.adapters.log_memory import MemoryLog
from mainspring.data.streams.declaring import Stream
from mainspring.data.streams.decoding import Decoding
from mainspring.data.streams.model import Message, NewMessage, OffsetAhead, OffsetGone, Span
from mainspring.data.streams.recent import delays
from mainspring.features.keys import encode_key
from mainspring.ledger.adapters.memory import MemoryLedger
from mainspring.ledger.recording import Recorder
from mainspring.operations.stream_endpoints.payloads import DecodedRows
from mainspring.serving.plane.live import Router
from mainspring.serving.streaming.arms import Arms
from mainspring.serving.streaming.declaring import to_topic
from mainspring.serving.streaming.partition import PREDICTIONS
from mainspring.serving.streaming.predictions import PredictionSink
from mainspring.serving.streaming.progress import BatchRecord, Made
from mainspring.serving.streaming.replay import Replay
from mainspring.serving.streaming.scoring import Scored
from mainspring.serving.streaming.state import PartitionState, Waiting

event = st.builds(
    message,
    st.integers(0, 40).map(lambda n: n * 0.5) | st.integers(0, 600).map(float) | st.floats(0, 30, width=32),
    st.sampled_from(["a", "b", "c"]),
    st.none() | st.sampled_from([0.1, 0.2, 1e9, -1e9, 3.5]),
    shop=st.sampled_from([None, "x", "y"]),
    id=st.none() | st.integers(1, 6),
)
broken = st.sampled_from(
    [
        NewMessage(None, at=START),
        NewMessage(b"{", at=START),
        NewMessage(b"[]", at=START),
        NewMessage(b'{"card": "a", "at": "2023-11-14T22:13:20"}', at=START),
        NewMessage(b'{"card": 7, "at": "2023-11-14T22:13:20Z"}', at=START),
        NewMessage(b'{"at": "2023-11-14T22:13:20Z", "card": null}', at=START),
        NewMessage(b'{"card": "a"}', at=START),
        message(30, accepted=-6.0),
    ]
)


@pytest.mark.timeout(900)
@settings(max_examples=examples(gate=12, deep=400), deadline=None)
@given(
    st.lists(event | event | event | broken, max_size=60),
    st.integers(1, 9),
    st.sampled_from(["process", "drop", "dead"]),
)
def test_any_history_in_any_batches_is_as_by_brute_force(messages: list[NewMessage], at_once: int, late: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(Path(folder), of=endpoint(late=late))
        stage.put(messages)
        runner = stage.runner(at_once=at_once)
        while runner.step():
            pass
        runner.deliver()
        progress = runner.partitions[0].progress
        runner.close()
        wanted = brute(all_messages(stage.log, TOPIC), dataclasses.replace(SPEC, late=late))
        assert told(stage.outputs()) == wanted.outputs
        assert {int(row["offset"]) for row in stage.rows("checks__dead_letters")} == wanted.dead.keys()
        assert sorted(row["event_id"] for row in stage.rows("scored")) == sorted(
            each["event_id"] for each in wanted.outputs
        )
        assert progress is not None
        counts = (progress.processed, progress.dead, progress.late, progress.duplicates)
        assert counts == (len(wanted.outputs), len(wanted.dead), wanted.late, wanted.duplicates)

        replay = Replay(stage.endpoint, stage.log, lambda _: Doubling(), JSON_ROWS)
        if messages:
            again: list[Any] = []
            since = len(messages) // 2
            found = replay.run(stage.states.open(0), 0, since, lambda each: again.append(each.document()))
            assert found.different == []
            assert again == [
                each.value
                for each, of in zip(all_messages(stage.log, OUT), wanted.outputs, strict=True)
                if int(of["event_id"].rpartition("-")[2]) >= since
            ]


def test_a_message_that_fails_is_a_dead_letter_after_its_tries_and_the_others_are_processed(tmp_path: Path) -> None:
    stage = Stage(tmp_path, of=endpoint(tries=2))
    stage.put([message(minute, shop="poison" if minute == 3 else "x") for minute in range(8)])
    stage.run()
    assert [each["event_id"] for each in stage.outputs()] == [f"checks-0-{n}" for n in range(8) if n != 3]
    (dead,) = stage.rows("checks__dead_letters")
    assert dead["reason"] == "It failed 2 times: ValueError: no shop sells that"
    assert (dead["partition"], dead["offset"], json.loads(dead["value"])["shop"]) == (0, "3", "poison")
    clean = Stage(tmp_path / "clean")
    clean.put([message(minute, shop="x") for minute in range(8) if minute != 3])
    clean.run()
    values = [each["outputs"] for each in clean.outputs()]
    assert [each["outputs"] for each in stage.outputs()] == values  # the poison left nothing behind in the state


def test_a_backend_that_does_not_answer_kills_no_message(tmp_path: Path) -> None:
    class Silent(Doubling):
        fails = 2

        def score(self, columns: Any, at: Any) -> Any:
            if self.fails:
                self.fails -= 1
                raise Unavailable("The store does not answer.")
            return super().score(columns, at)

    stage = Stage(tmp_path)
    stage.predictor = Silent()
    stage.put([message(minute) for minute in range(3)])
    runner = stage.runner()
    for _ in range(2):
        with pytest.raises(Unavailable):
            runner.step()
    assert runner.step() == 3
    runner.deliver()
    assert len(stage.outputs()) == 3
    assert stage.rows("checks__dead_letters") == []
    runner.close()


def test_reasons_of_dead_letters_name_the_value(tmp_path: Path) -> None:
    stage = Stage(tmp_path, log=MemoryLog(ManualClock(), largest_bytes=1 << 30))  # as a broker of others may
    stage.put(
        [
            NewMessage(None, at=START),
            NewMessage(b'{"card": "a", "at": "2023-11-14T22:13:20"}', at=START),
            message(1, card=None),
            message(7, accepted=-6),
            NewMessage(b'{"card": "a", "amount": "12"}', at=START),
            NewMessage(b'{"card": "' + b"x" * (16 << 20) + b'"}', at=START),
        ]
    )
    stage.run()
    reasons = [row["reason"] for row in stage.rows("checks__dead_letters")]
    assert reasons[0] == "The message is no row of its source: it has no value: a tombstone."
    assert "datetime" in reasons[1]
    assert "timezone" in reasons[1]
    assert reasons[2] == "The key 'card' is null."
    assert reasons[3] == "The event is 6m ahead of the time at which the log accepted it."
    assert "$.amount" in reasons[4]
    assert "16,777,228 bytes" in reasons[5]
    assert max(len(row["value"] or b"") for row in stage.rows("checks__dead_letters")) == 65_536


def test_partitions_have_their_own_watermarks_and_a_new_one_is_read_from_its_beginning(tmp_path: Path) -> None:
    stage = Stage(tmp_path, partitions=2, of=endpoint(late="drop"))
    first = [dataclasses.replace(message(minute), partition=0) for minute in (0, 60)]
    stage.put([*first, dataclasses.replace(message(1, card="b"), partition=1)])
    runner = stage.runner()
    while runner.step():
        pass
    stage.log.create(TOPIC, 3)
    stage.put([dataclasses.replace(message(2, card="c"), partition=2)])
    runner._look_at = 0.0
    while runner.step():
        pass
    runner.deliver()
    assert {each["event_id"] for each in stage.outputs()} == {"checks-0-0", "checks-0-1", "checks-1-0", "checks-2-0"}
    runner.close()


def test_the_end_is_not_reached_before_what_a_dead_process_left_is_processed(tmp_path: Path) -> None:
    class Late(Alone):
        """A share that gets a partition only once its dead owner's lease has ended."""

        asked = 0

        def held(self, partitions: Any) -> Any:
            self.asked += 1
            return super().held(partitions) if self.asked > 3 else {}

    stage = Stage(tmp_path)
    stage.share = Late()
    stage.put([message(minute) for minute in range(5)])
    runner = stage.runner()
    assert runner.run(threading.Event(), idle_s=0.01) == 5
    runner.close()
    assert len(stage.outputs()) == 5


def test_back_pressure_stops_reading_while_a_sink_is_behind(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.put([message(minute / 10) for minute in range(50)])
    runner = stage.runner(at_once=10, most_waiting=20)
    assert [runner.step() for _ in range(4)] == [10, 10, 0, 0]
    runner.deliver()
    assert [runner.step() for _ in range(3)] == [10, 10, 0]
    runner.close()


def test_an_output_is_as_old_as_its_event_until_every_sink_has_it(tmp_path: Path) -> None:
    class Away(MemoryLog):
        away = True

        def produce(self, topic: str, messages: Any) -> Any:
            if topic == OUT and self.away:
                raise Unavailable("The log does not answer.")
            return super().produce(topic, messages)

    stage = Stage(tmp_path, log=(log := Away(ManualClock())))
    stage.wall = wall = ManualClock(START + 10 * MINUTE_US)
    stage.put([message(minute, accepted=1, id=minute % 4, shop="x") for minute in range(5)])

    def minutes(runner: Any) -> list[float]:
        found = delays([runner.partitions[0].recent], wall.now())
        return [round(each / 60, 2) for each in msgspec.structs.astuple(found)]

    runner = stage.runner()
    runner.step()
    held = [10.0, 9.0, 8.0, 7.0]  # their median, and nearly the oldest; so of what the log accepted a minute later
    assert minutes(runner) == [8.5, 9.97, 7.0, 8.96]
    assert runner.partitions[0].recent.rate() == 5.0
    wall.advance(MINUTE_US)
    with pytest.raises(Unavailable):
        runner.deliver()
    assert minutes(runner)[:2] == [9.5, 10.97]
    runner.close()
    runner = stage.runner()  # the next process knows what waits
    runner.step()
    assert minutes(runner)[:2] == [9.5, 10.97]
    log.away = False
    runner.deliver()
    wall.advance(60 * MINUTE_US)
    assert minutes(runner)[:2] == [round(np.quantile(np.array(held) + 1, each), 2) for each in (0.5, 0.99)]
    stage.put([message(1, id=1)])  # nothing waits for it
    runner.step()
    assert minutes(runner)[:2] == [9.5, 10.97]
    runner.close()


def test_a_version_is_pinned_in_the_outputs_and_a_replay_predicts_by_the_recorded_ones(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.put([message(0)])
    stage.run()
    stage.predictor = Doubling("2")
    stage.put([message(1)])
    stage.run()
    assert [each["version"] for each in stage.outputs()] == ["1", "2"]
    asked: list[str] = []

    def predictor(part: Any) -> Doubling:
        asked.append(part.version)
        return Doubling(part.version)

    found = Replay(stage.endpoint, stage.log, predictor, JSON_ROWS).run(stage.states.open(0), 0)
    assert (asked, found.different, found.messages, found.outputs) == (["1", "2"], [], 2, 2)


class Tripling(Doubling):
    """A candidate with other features: three times the amount, less what the key spent lately."""

    def score(self, columns: Any, at: Any) -> Scored:
        features = {"amount": list(columns["amount"]), "recent": list(columns["recent"])}
        if "fails" in columns["shop"]:
            raise ValueError("no such shop")
        return Scored(features, self.again(features, len(at)))

    def again(self, features: Any, rows: int) -> dict[str, list[float]]:
        self.calls.append(rows)
        return {"score": [(amount or 0.0) * 3.0 for amount in features["amount"]]}


VERSIONS = {"1": Doubling("1"), "2": Tripling("2")}


@settings(max_examples=examples(gate=12, deep=300), deadline=None)
@given(st.lists(event | broken, max_size=40), st.integers(1, 9), st.sampled_from([0.0, 0.3, 0.7, 1.0]))
def test_a_rollout_gives_a_key_the_version_that_a_gateway_gives_it_and_a_replay_the_same(
    messages: list[NewMessage], at_once: int, share: float
) -> None:
    route = rollout(share)
    router = Router(route.endpoint, route.arms, route.salt)

    def version(card: str) -> str:
        return router.pick(repr([card]).encode()).version

    def score(fields: Any) -> float:
        return (fields["amount"] or 0.0) * (2.0 if version(fields["card"]) == "1" else 3.0)

    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(Path(folder))
        stage.arms = Arms(list(VERSIONS.values()), route, ["card"])
        stage.put(messages)
        stage.run(at_once=at_once)
        wanted = brute(all_messages(stage.log, TOPIC), dataclasses.replace(SPEC, score=score))
        assert told(stage.outputs()) == wanted.outputs
        assert all(each["version"] == version(each["key"]["card"]) for each in stage.outputs())
        if messages:
            stage.arms = None  # the rollout is over
            again: list[Any] = []
            replay = Replay(stage.endpoint, stage.log, lambda part: VERSIONS[part.version], JSON_ROWS)
            found = replay.run(stage.states.open(0), 0, None, lambda each: again.append(each.document()))
            assert found.different == []
            assert again == [each.value for each in all_messages(stage.log, OUT)]


def test_a_rollout_by_request_assigns_events_by_their_ids(tmp_path: Path) -> None:
    stage, route = Stage(tmp_path), rollout(0.5, "request")
    for each in VERSIONS.values():
        each.calls.clear()
    stage.arms = Arms(list(VERSIONS.values()), route)
    stage.put([message(minute) for minute in range(30)])
    stage.run(at_once=7)
    calls = [rows for each in VERSIONS.values() for rows in each.calls]
    assert (sum(calls), len(calls) <= 10) == (30, True)  # each version once a batch
    router = Router(route.endpoint, route.arms, route.salt)
    found = {each["event_id"]: each["version"] for each in stage.outputs()}
    assert found == {id_: router.pick(id_.encode()).version for id_ in found}
    assert {*found.values()} == {"1", "2"}


class SplitLog(MemoryLog):
    """A log whose partition 0 was split into 1 and 2, once there are three."""

    def parents(self, topic: str) -> dict[int, tuple[int, ...]]:
        return {1: (0,), 2: (0,)} if topic == TOPIC and len(self.partitions(topic)) == 3 else {}

    def emptied(self, topic: str, positions: Mapping[int, int]) -> set[int]:
        spans = self.spans(topic, positions)
        return {number for number, offset in positions.items() if offset >= spans[number].next}


@pytest.mark.parametrize("start", ["first", "next"])
def test_a_split_is_followed_once_what_was_before_it_is_delivered(start: str, tmp_path: Path) -> None:
    stage = Stage(tmp_path, of=endpoint(start=start), log=SplitLog(ManualClock()))
    stage.run()  # which begins
    stage.put([message(minute) for minute in range(3)])
    stage.log.create(TOPIC, 3)
    stage.put([dataclasses.replace(message(minute), partition=1 + minute % 2) for minute in range(3, 7)])
    runner = stage.runner()  # another process, which does not know what was there before
    assert runner.step() == 3
    for delivered in (False, True):
        runner._look_at = 0.0
        assert (runner.step(), {*runner.partitions}) == ((4, {1, 2}) if delivered else (0, {0}))
        runner.deliver()
    runner.close()
    ids = [each["event_id"] for each in stage.outputs()]
    assert sorted(ids) == [f"checks-{each}" for each in ("0-0", "0-1", "0-2", "1-0", "1-1", "2-0", "2-1")]
    assert [each[7] for each in ids[:3]] == ["0", "0", "0"]


def test_a_partition_that_was_added_while_no_process_ran_is_read_from_its_first_message(tmp_path: Path) -> None:
    stage = Stage(tmp_path, of=endpoint(start="next"))
    stage.put([message(0)])
    stage.run()  # which begins behind it
    stage.log.create(TOPIC, 2)
    stage.put([dataclasses.replace(message(minute), partition=minute % 2) for minute in range(1, 5)])
    stage.run()
    assert sorted(each["event_id"] for each in stage.outputs()) == [f"checks-{n}" for n in ("0-1", "0-2", "1-0", "1-1")]


class Parted:
    """A share of some partitions."""

    def __init__(self, *partitions: int) -> None:
        self.partitions = {*partitions}

    def held(self, partitions: Collection[int]) -> Mapping[int, int]:
        return dict.fromkeys(self.partitions.intersection(partitions), 1)

    def give_up(self, partition: int) -> None:
        pass


def test_all_partitions_of_the_beginning_begin_with_the_next_message_whoever_reads_them(tmp_path: Path) -> None:
    stage = Stage(tmp_path, of=endpoint(start="next"), partitions=4)

    def each_gets(minute: int) -> None:
        stage.put([dataclasses.replace(message(minute), partition=each) for each in range(4)])

    each_gets(0)  # the backlog
    stage.share = Parted(0, 1)
    stage.run()
    assert stage.outputs() == []
    each_gets(1)
    stage.share = Parted(2, 3)  # a slower one, or the next one after a kill
    stage.run()
    assert sorted(each["event_id"] for each in stage.outputs()) == ["checks-2-1", "checks-3-1"]


def test_a_shard_that_was_read_to_its_end_is_not_opened_again(tmp_path: Path) -> None:
    class Expired(SplitLog):
        def spans(self, topic: str, partitions: Iterable[int]) -> dict[int, Span]:
            found = super().spans(topic, partitions)
            return {each: Span(0, 0) if topic == TOPIC and each == 0 and gone else found[each] for each in found}

        def emptied(self, topic: str, positions: Mapping[int, int]) -> set[int]:
            return {0} & positions.keys() if gone else super().emptied(topic, positions)

        def read(self, topic: str, after: Mapping[int, int], **options: Any) -> list[Message]:
            if gone and after.get(0):
                raise OffsetAhead(topic, 0, after[0], Span(0, 0))
            return super().read(topic, after, **options)

    gone = False
    stage = Stage(tmp_path, log=Expired(ManualClock()))
    stage.put([message(0)])
    stage.run()
    stage.log.create(TOPIC, 3)
    stage.put([dataclasses.replace(message(1), partition=1)])
    gone = True
    assert {*stage.run().partitions} == {1, 2}
    assert len(stage.outputs()) == 2


def test_a_shard_is_kept_until_its_batches_are_delivered_too(tmp_path: Path) -> None:
    class Late:
        id = PREDICTIONS

        def deliver(self, file: PartitionState, _partition: int) -> int:
            found = [number for number, _ in file.batches(file.done(self.id))] if open_ else []
            if found:
                file.deliver(self.id, found[-1])
            return len(found)

    open_ = False
    stage = Stage(tmp_path, log=SplitLog(ManualClock()))
    stage.sinks = [Late()]
    stage.put([message(0)])
    stage.run()
    stage.log.create(TOPIC, 3)
    assert {*stage.run().partitions} == {0}
    open_ = True
    assert {*stage.run().partitions} == {0}
    assert {*stage.run().partitions} == {1, 2}


def test_who_begins_with_the_next_message_leaves_out_what_was_split_before(tmp_path: Path) -> None:
    stage = Stage(tmp_path, of=endpoint(start="next"), log=SplitLog(ManualClock()), partitions=3)
    stage.put([dataclasses.replace(message(0), partition=each) for each in range(3)])
    runner = stage.runner()
    runner.step()
    assert {*runner.partitions} == {1, 2}
    stage.put([dataclasses.replace(message(1), partition=2)])
    assert runner.step() == 1
    runner.close()


def test_what_a_candidate_fails_on_is_a_dead_letter_and_its_failure(tmp_path: Path) -> None:
    stage = Stage(tmp_path, of=endpoint(tries=2))
    stage.arms = Arms(list(VERSIONS.values()), rollout(1.0), ["card"])
    stage.put([message(minute, shop="fails" if minute == 2 else "x") for minute in range(4)])
    stage.run()
    assert [each["event_id"] for each in stage.outputs()] == ["checks-0-0", "checks-0-1", "checks-0-3"]
    assert stage.rows("checks__dead_letters")[0]["reason"] == "It failed 2 times: ValueError: no such shop"
    (lost,) = [each for _, record in stage.states.open(0).batches() for each in record.lost]
    assert (lost.version, lost.rollout, lost.weight, lost.offset, lost.kind) == ("2", "r1", 1.0, "2", "ValueError")


def test_what_was_logged_of_lost_messages_is_looked_up_once_after_a_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Counted(MemoryLedger):
        asked = 0

        def failed(self, rollout: str, ids: Collection[str]) -> set[str]:
            self.asked += 1
            return super().failed(rollout, ids)

    stage, ledger = Stage(tmp_path, of=endpoint(tries=2)), Counted()
    stage.arms = Arms(list(VERSIONS.values()), rollout(1.0), ["card"])
    stage.put([message(minute, shop="fails") for minute in range(2)])
    stage.run(at_once=1)

    def recorder(made: Made) -> Recorder:
        return Recorder(ledger, endpoint="checks", model=made.model, version=made.version, digest=made.bundle)

    for asked in (1, 2):  # the second time all of them are known
        file = stage.states.open(0)
        monkeypatch.setattr(file, "deliver", lambda *_: None)  # as of a process that was killed before it
        assert PredictionSink("checks", recorder, ledger, ledger).deliver(file, 0) == 2
        file.close()
        ledger.compact()
        assert ledger.asked == asked
        assert [each.id for each in ledger.failures("r1")] == [f"checks-0-{n}@2" for n in range(2)]


def test_a_candidate_that_does_not_fit_the_endpoint_leaves_the_control_alone(tmp_path: Path) -> None:
    class Other(Doubling):
        types = {"points": ms.Float64}

    stage = Stage(tmp_path, of=endpoint(state=None, rule={"alert": ms.col("score") > 5}))
    stage.arms = Arms([Doubling("1"), Other("2")], rollout(1.0), ["card"])
    stage.put([message(0)])
    stage.run()
    assert [each["version"] for each in stage.outputs()] == ["1"]


def test_a_replay_tells_what_differs(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.put([message(0), message(1)])
    stage.run(at_once=1)

    found = Replay(stage.endpoint, stage.log, lambda _: Tripling("1"), JSON_ROWS).run(stage.states.open(0), 0, 1)
    assert found.different == [(1, 2, "")]
    with pytest.raises(Invalid, match="recorded from offset 0 on"):
        Replay(stage.endpoint, stage.log, lambda _: Doubling(), JSON_ROWS).run(stage.states.open(0), 0, -1)
    stage.log.forget(TOPIC, {0: 1})
    with pytest.raises(OffsetGone):
        Replay(stage.endpoint, stage.log, lambda _: Doubling(), JSON_ROWS).run(stage.states.open(0), 0)


def test_states_of_an_older_version_are_migrated(tmp_path: Path) -> None:
    class Newer(msgspec.Struct, frozen=True):
        total: int = 0

    def count(event: Any, state: Newer) -> tuple[dict[str, int], Newer]:
        return {"total": state.total + 1}, Newer(state.total + 1)

    stage = Stage(tmp_path)
    stage.put([message(0), message(1)])
    stage.run()
    stage.put([message(2)])
    stage.endpoint = endpoint(state=Newer, rule=count, state_version=2)
    with pytest.raises(Invalid, match=r"version 1; this is version 2.*migrate"):
        stage.runner().step()
    changes: dict[str, Any] = {"state": Newer, "rule": count, "state_version": 2}
    stage.endpoint = endpoint(**changes, migrate=lambda version, content: {"total": content["events"]})
    stage.run()
    assert stage.outputs()[-1]["outputs"]["total"] == 3


def test_rules_of_expressions_and_a_filter_of_a_sink(tmp_path: Path) -> None:
    alert = (ms.col("score") > 5) | (ms.col("recent") >= 2)
    rule = {"alert": alert, "amount": ms.col("amount")}
    of = endpoint(state=None, rule=rule, to=[to_topic(OUT, where="alert")])
    stage = Stage(tmp_path, of=of)
    stage.put([message(minute, amount=3.0 if minute == 1 else 1.0) for minute in range(4)])
    stage.run()
    assert [each["event_id"] for each in stage.outputs()] == ["checks-0-1", "checks-0-2", "checks-0-3"]
    stage.endpoint = endpoint(state=None, rule={"alert": ms.col("skore") > 1})
    with pytest.raises(Invalid, match=r"The rule reads \['skore'\]"):
        stage.runner().step()
    stage.endpoint = endpoint(state=None, rule=rule, to=[to_topic(OUT, where="alarm")])
    with pytest.raises(Invalid, match="'alarm' is true, which is no output"):
        stage.runner().step()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"key": "amount"}, "'amount' cannot be a key"),
        ({"key": "kard"}, "'kard' cannot be a key"),
        ({"late": "maybe"}, "late='maybe'"),
        ({"to": [to_topic(TOPIC)]}, "reads the topic 'payments' and writes to it"),
        ({"to": [to_topic(OUT), to_topic(OUT)]}, "Fix: name each destination once"),
        ({"windows": {"amount": ms.count(window="1h")}}, "'amount'.*a name that is taken"),
        ({"windows": {"x": ms.sum("fee", window="1h")}}, r"'x'.*reads \['fee'\]"),
        ({"windows": {"x": ms.last("amount")}}, "'x'.*of kind 'last'"),
        ({"state": dict}, "the state <class 'dict'>"),
        ({"rule": {"alert": True}, "state": None}, "The rule of stream endpoint 'checks'"),
        ({"rule": None}, "no function that changes it"),
        ({"model": "doubling"}, "write doubling@champion"),
        ({"tries": 0}, "tries=0"),
        ({"allowed_lateness": "soon"}, "'soon' is not a duration"),
        ({"unique": "amount"}, "unique='amount'"),
    ],
)
def test_a_wrong_declaration_is_refused_by_name(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(Invalid, match=said):
        endpoint(**changes)


def test_a_window_is_exact_to_the_microsecond(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    tick = 1 / MINUTE_US
    stage.put([message(0), message(0), message(10 - tick), message(10), message(10 + tick)])
    stage.run()
    # At T a window holds [T - W, T): events of the same instant do not see each other.
    assert [each["outputs"]["recent"] for each in stage.outputs()] == [0, 0, 2, 3, 2]


def test_messages_may_be_avro(tmp_path: Path) -> None:
    fields = [{"name": "card", "type": "string"}, {"name": "amount", "type": ["null", "double"]}]
    fields.append({"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}})
    schema = {"type": "record", "name": "Payment", "fields": fields}
    (tmp_path / "payment.avsc").write_text(json.dumps(schema))
    stream = Stream(payments, topic=TOPIC, format="avro", schema="payment.avsc")
    stage = Stage(tmp_path / "state", of=endpoint(payload=stream))
    stage.decoder = DecodedRows(Decoding(stream, tmp_path))
    for minute in range(3):
        file = io.BytesIO()
        at = datetime.fromtimestamp(START / 1e6, UTC) + timedelta(minutes=minute)
        fastavro.schemaless_writer(file, schema, {"card": "a", "amount": 2.5, "at": at})
        stage.put([NewMessage(file.getvalue(), at=START + minute * MINUTE_US)])
    stage.put([NewMessage(b"\xff", at=START)])
    stage.run()
    assert [(each["outputs"]["score"], each["outputs"]["recent"]) for each in stage.outputs()] == [
        (5.0, 0),
        (5.0, 1),
        (5.0, 2),
    ]
    assert [row["offset"] for row in stage.rows("checks__dead_letters")] == ["3"]
    other = Stream(ms.Source("other", schema={"card": ms.String}, event_time="at"), topic=TOPIC)
    with pytest.raises(Invalid, match="its payload of 'other'"):
        endpoint(payload=other)


def test_a_topic_that_vanishes_is_waited_for_and_another_of_its_name_is_refused(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.put([message(0), message(1)])
    runner = stage.runner(at_once=1)
    assert runner.step() == 1
    kept = stage.log._topics.pop(TOPIC)
    with pytest.raises(NotFound, match="no topic 'payments'"):
        runner.step()
    stage.log._topics[TOPIC] = kept
    assert runner.step() == 1
    del stage.log._topics[TOPIC]
    stage.log.create(TOPIC)
    stage.put([message(0)])
    with pytest.raises(Corrupt, match="ends at offset 1; offset 2 was to be read next"):
        runner.step()
    runner.close()


def test_states_are_no_pickles_and_keep_their_type(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.put([message(0)])
    runner = stage.runner()
    runner.step()
    ((key, content),) = runner.partitions[0].file.all_states().items()
    assert msgspec.msgpack.decode(key) == ["a"]
    assert msgspec.msgpack.decode(content)[3] == {"events": 1, "chain": 2.0}
    assert isinstance(runner.partitions[0].processor.states.decode(content).own, Seen)
    runner.close()


def test_an_erasure_reaches_what_a_running_endpoint_keeps_in_memory_and_ends_its_replay(tmp_path: Path) -> None:
    class OfA:
        def has(self, key: bytes) -> bool:
            return key == encode_key(["a"])

        def batch(self, record: BatchRecord) -> BatchRecord | None:
            left = {key: content for key, content in record.undo.items() if not self.has(key)}
            return msgspec.structs.replace(record, undo=left, erased=True) if len(left) < len(record.undo) else None

        def entry(self, _: Waiting) -> Waiting | None:
            return None

    stage = Stage(tmp_path)
    runner = stage.runner()
    stage.put([message(0, "a", id=1), message(0, "b", id=2)])
    assert runner.step() == 2
    stage.states.open(0).erase(OfA())
    with pytest.raises(Invalid, match="can be replayed"):
        Replay(stage.endpoint, stage.log, lambda _: Doubling(), JSON_ROWS).run(stage.states.open(0), 0)
    stage.put([message(1, "a", id=3), message(1, "b", id=4)])
    assert runner.step() == 2
    runner.deliver()
    runner.close()
    assert [each["outputs"]["state"][0] for each in stage.outputs()] == [1, 1, 1, 2]
    found = Replay(stage.endpoint, stage.log, lambda _: Doubling(), JSON_ROWS).run(stage.states.open(0), 0)
    assert (found.since, found.messages, found.different) == (2, 2, [])
