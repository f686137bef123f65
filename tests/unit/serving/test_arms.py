"""Requests of a rollout: which are assigned, what the log knows of them, and what counts as a failure."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

import mainspring as ms
from kit.serving import Kit, bundle, full_request, keyed_request, model
from kit.waiting import wait_until_async
from mainspring.core.errors import DeadlineExceeded, Invalid, MainspringError, Overloaded, Unavailable
from mainspring.delivery.conformance import rollout
from mainspring.delivery.rollout.judging import judge
from mainspring.delivery.rollout.observing import observed
from mainspring.ledger.conformance import failure
from mainspring.ledger.model import Failure, Log, Prediction
from mainspring.project.catalog import memory_catalog
from mainspring.registry.model import Bundle
from mainspring.security.model import Principal
from mainspring.serving.adapters.catalog import CatalogRoutes, revision_table, routes_table
from mainspring.serving.adapters.onnx import OnnxExecutor
from mainspring.serving.grpc import calls
from mainspring.serving.plane.arms import FailureBuffer
from mainspring.serving.plane.copy_file import CopyFile, Kept
from mainspring.serving.plane.executor import ModelFailed
from mainspring.serving.plane.inference import Inference, infer
from mainspring.serving.plane.lane import monotonic_us
from mainspring.serving.plane.plane import DataPlane
from mainspring.serving.protocol.codec import decode_infer, encode
from unit.serving.test_grpc_deadlines import message
from unit.serving.test_live import on_a_loop, serving

pytestmark = pytest.mark.slow

ASKING = Principal("key", "test", frozenset())
HALVES = (0.5, 0.5)


async def ask(plane: DataPlane, body: dict[str, Any], **options: Any) -> Any:
    asked = decode_infer(encode(body)).asked
    given = {"version": "", "principal": "key", "received_us": monotonic_us(), **options}
    answered = await infer(asked, plane.endpoint("late-arrival"), **given)
    answered.ran = None  # it has its lane, and a plane that stops waits until nobody has
    return answered


def logged(kit: Kit, replies: list[Any]) -> list[Prediction]:
    """Return the first prediction of each reply."""
    return [kit.log.find(reply.parameters["prediction_ids"][0]) for reply in replies]


def failures(kit: Kit) -> list[Failure]:
    kit.log.compact()
    return kit.log.failures("r1")


class Bad(OnnxExecutor):
    """A candidate, the version whose bundle has the bias 1, that fails as `fails` says."""

    fails: type[Exception] | None = None
    digest = ""

    def __init__(self, made: Bundle) -> None:
        super().__init__(made)
        self.bad = made.digest == Bad.digest

    def predict(self, inputs: Any, rows: int) -> dict[str, Any]:
        if self.bad and Bad.fails is not None:
            raise Bad.fails("It is bad.")
        return super().predict(inputs, rows)


@pytest.fixture
def bad() -> Any:
    Bad.digest, Bad.fails = bundle(1.0, model_onnx=model(1.0)).digest, None
    yield Bad
    Bad.fails = None


@on_a_loop
async def test_a_prediction_carries_its_arm_its_weight_and_its_unit() -> None:
    kit = Kit()
    kit.roll_out("1", "2", weights=(0.75, 0.25))
    async with serving(kit, OnnxExecutor) as plane:
        carriers = [f"C{number}" for number in range(60)]
        replies = [await ask(plane, keyed_request(carrier)) for carrier in carriers]
        found = logged(kit, replies)
        again = logged(kit, [await ask(plane, keyed_request(carrier)) for carrier in carriers])
    assert {(each.version, each.rollout, each.weight) for each in found} == {("1", "r1", 0.75), ("2", "r1", 0.25)}
    assert [each.unit for each in again] == [each.unit for each in found]
    assert len({each.unit for each in found}) == len(carriers)
    assert all(each.version == ("2" if each.unit / 2**63 >= 0.75 else "1") for each in found)


@on_a_loop
async def test_one_key_of_several_is_the_unit() -> None:
    units = {}
    for by in ("carrier", ""):
        kit = Kit()
        kit.roll_out("1", "2", weights=HALVES, by=by)
        async with serving(kit, OnnxExecutor) as plane:
            replies = []
            for carrier in ("AA", "UA"):
                for flight in range(20):
                    body = keyed_request(carrier)
                    body["inputs"][1]["data"] = [flight]
                    replies.append(await ask(plane, body))
            units[by] = [each.unit for each in logged(kit, replies)]
    assert [len(set(units["carrier"][:20])), len(set(units["carrier"]))] == [1, 2]
    assert len(set(units[""])) == 40, "all keys together: each flight is a unit"


@on_a_loop
async def test_a_version_that_is_named_is_no_part_of_a_rollout_also_within_a_batch() -> None:
    kit = Kit()
    kit.roll_out("1", "2", weights=HALVES)
    async with serving(kit, OnnxExecutor) as plane:
        bodies = [full_request(id=f"{number}") for number in range(8)] + [keyed_request("AA", "UA")]
        replies = await asyncio.gather(
            *(ask(plane, body, version=version) for body in bodies for version in ("", "1", "2"))
        )
    rows = [
        [kit.log.find(each) for each in reply.parameters["prediction_ids"]] for reply in replies
    ]  # a reply with a version between replies without, and requests by key between others
    for place, (first, second) in enumerate(rows):
        told = (first.rollout, first.weight, first.unit > 0, first.row, second.row, second.unit)
        assert told == (("", 1.0, False, 0, 0, 0) if place % 3 else ("r1", 0.5, True, 0, 1, first.unit))


@on_a_loop
async def test_a_request_is_assigned_by_its_id_else_by_chance() -> None:
    kit = Kit()
    kit.roll_out("1", "2", weights=HALVES, assign="request")
    async with serving(kit, OnnxExecutor) as plane:
        by_id = [logged(kit, [await ask(plane, keyed_request("AA", id="try 7")) for _ in range(5)]) for _ in range(2)]
        assert len({(each.version, each.unit) for group in by_id for each in group}) == 1
        named = logged(kit, [await ask(plane, keyed_request("AA"), named="try 7") for _ in range(5)])
        assert {each.unit for each in named} == {by_id[0][0].unit}
        chance = logged(kit, [await ask(plane, keyed_request("AA")) for _ in range(64)])
    assert {each.version for each in chance} == {"1", "2"}
    assert len({each.unit for each in chance}) == 64


@on_a_loop
async def test_grpc_assigns_and_fails_as_http_does(bad: type[Bad]) -> None:
    kit = Kit(executors=bad)
    kit.roll_out("1", "2", weights=HALVES, assign="request")
    async with serving(kit, bad) as plane:
        versions = {}
        for number in range(24):
            caller = calls.Caller(ASKING, monotonic_us(), request_id=f"call {number}")
            reply = await calls.INFER.answer(plane, message(), caller)
            versions[f"call {number}"] = reply.model_version
            over_http = await ask(plane, full_request(), named=f"call {number}")
            assert over_http.model_version == reply.model_version
        assert set(versions.values()) == {"1", "2"}
        bad.fails = ModelFailed
        for name, version in versions.items():
            asking = calls.INFER.answer(plane, message(), calls.Caller(ASKING, monotonic_us(), request_id=name))
            if version == "2":
                with pytest.raises(ModelFailed):
                    await asking
            else:
                await asking
    found = failures(kit)
    assert sum(each.count for each in found) == Counter(versions.values())["2"]
    assert {(each.version, each.kind, each.status, each.weight) for each in found} == {("2", "ModelFailed", 500, 0.5)}


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (ModelFailed, "ModelFailed", 500),
        (Invalid, "Invalid", 400),
        (Unavailable, "Unavailable", 503),
        (ZeroDivisionError, "ModelFailed", 500),
    ],
)
@on_a_loop
async def test_what_the_model_fails_on_is_a_failure_of_its_arm(
    bad: type[Bad], error: type[Exception], kind: str, status: int
) -> None:
    kit = Kit()
    kit.roll_out("1", "2", weights=HALVES)
    async with serving(kit, bad) as plane:
        bad.fails = error
        replies = await asyncio.gather(
            *(ask(plane, keyed_request(f"C{number}", id=f"i{number}")) for number in range(30)), return_exceptions=True
        )
        for each in list(replies):
            assert each.model_version == "1" if not isinstance(each, Exception) else isinstance(each, MainspringError)
        named = await asyncio.gather(
            *(ask(plane, keyed_request("AA"), version="2") for _ in range(3)), return_exceptions=True
        )
        assert all(isinstance(each, MainspringError) for each in named)  # and none of them is the rollout's
        text = plane.metrics.text().decode()
    wrong = {f"i{place}" for place, each in enumerate(replies) if isinstance(each, Exception)}
    found = failures(kit)
    assert 5 < len(wrong) < 25
    assert {each.request_id for each in found} == wrong
    for each in found:
        assert (each.endpoint, each.model, each.version, each.digest) == ("late-arrival", "late", "2", bad.digest)
        assert (each.kind, each.status, each.principal, each.count) == (kind, status, "key", 1)
        assert (each.at, each.rollout, each.weight, each.unit > 0) == (kit.clock.now(), "r1", 0.5, True)
    labels = f'endpoint="late-arrival",kind="{kind}",version="2"'
    assert f"mainspring_arm_failures_total{{{labels}}} {float(len(wrong))}" in text
    assert f'mainspring_arm_answered_total{{endpoint="late-arrival",version="1"}} {30.0 - len(wrong)}' in text
    assert f'mainspring_arm_seconds_count{{endpoint="late-arrival",version="2"}} {float(len(wrong))}' in text


@on_a_loop
async def test_refusals_and_lateness_are_failures_of_the_arm_and_what_comes_before_is_not() -> None:
    kit = Kit()
    kit.roll_out("1", "2", weights=(0.0, 1.0), max_queue_rows=1)
    async with serving(kit, OnnxExecutor) as plane:
        both = [ask(plane, keyed_request("AA", id=name)) for name in ("first", "too many")]
        first, second = await asyncio.gather(*both, return_exceptions=True)
        assert first.model_version == "2"
        assert isinstance(second, Overloaded)
        with pytest.raises(DeadlineExceeded):
            await ask(plane, keyed_request("AA", id="too late"), deadline_us=monotonic_us() - 1)
        with pytest.raises(Invalid):
            await ask(plane, keyed_request("AA", id="no output", outputs=[{"name": "nothing"}]))
        with pytest.raises(Invalid):
            await ask(plane, {"id": "no inputs", "inputs": []})
    found = [(each.request_id, each.kind, each.status, each.version) for each in failures(kit)]
    assert sorted(found) == [
        ("no output", "Invalid", 400, "2"),
        ("too late", "DeadlineExceeded", 503, "2"),
        ("too many", "Overloaded", 429, "2"),
    ]


@on_a_loop
async def test_what_only_one_arm_cannot_take_is_its_failure() -> None:
    """The control takes a null hour, the candidate does not."""
    kit = Kit()
    kit.publish("1")
    exact = bundle(1.0, model_onnx=model(1.0, exact_hour=True))
    kit.bundles.save(exact)
    (made,) = kit.routes.current().values()
    arms = (msgspec.structs.replace(made.arms[0], weight=0.5), type(made.arms[0])("2", exact.digest, 0.5))
    kit.routes.publish([msgspec.structs.replace(made, arms=arms, rollout="r1", assign="request")])
    body = full_request()
    body["inputs"][-1]["data"] = [None, 3]
    async with serving(kit, OnnxExecutor) as plane:
        replies = await asyncio.gather(
            *(ask(plane, {**body, "id": f"i{number}"}) for number in range(24)), return_exceptions=True
        )
    wrong = {f"i{place}" for place, each in enumerate(replies) if isinstance(each, Invalid)}
    found = failures(kit)
    assert 0 < len(wrong) < 24
    assert {(each.request_id, each.version, each.kind) for each in found} == {(name, "2", "Invalid") for name in wrong}


@on_a_loop
async def test_a_caller_who_leaves_is_no_failure_unless_the_deadline_has_passed() -> None:
    kit = Kit()
    kit.roll_out("1", "2", weights=HALVES)
    async with serving(kit, OnnxExecutor) as plane:
        for name, left_us in (("early", 60_000_000), ("patient", 1)):
            asked, now = decode_infer(encode(keyed_request("AA", id=name))).asked, monotonic_us()
            served = plane.endpoint("late-arrival")
            leaving = Inference(asked, served, "", principal="key", received_us=now)
            leaving.submit(asyncio.get_running_loop().create_future(), deadline_us=now + 60_000_000)
            assert leaving.job is not None
            leaving.job.deadline = now + left_us
            await wait_until_async(lambda since=now: monotonic_us() > since + 1)
            leaving.cancel()
    assert [(each.request_id, each.kind) for each in failures(kit)] == [("patient", "DeadlineExceeded")]


@on_a_loop
async def test_a_candidate_that_hangs_fails_who_waits_for_it_and_nobody_else() -> None:
    class Hanging(Bad):
        go = threading.Event()

        def predict(self, inputs: Any, rows: int) -> dict[str, Any]:
            if self.bad and Bad.fails is not None:
                assert self.go.wait(60)
            return super(Bad, self).predict(inputs, rows)

    kit = Kit(executors=Hanging)
    Bad.digest, Bad.fails = bundle(1.0, model_onnx=model(1.0, slow=True)).digest, None
    kit.roll_out("1", "2", weights=HALVES, assign="request", slow=True)
    plane = DataPlane(
        routes=kit.routes, bundles=kit.bundles, online=kit.online, log=kit.log, executors=Hanging, clock=kit.clock,
        threads=2, hangs_us=0,
    )  # fmt: skip
    plane.start()
    try:
        await plane.preloaded()
        Bad.fails = ModelFailed
        within = {"deadline_us": monotonic_us() + 1_000_000}
        replies = await asyncio.gather(
            *(ask(plane, keyed_request("AA", id=f"i{number}"), **within) for number in range(12)),
            return_exceptions=True,
        )
        assert not Hanging.go.is_set()
        router = plane.endpoint("late-arrival").router
        held = {name for name in map("i{}".format, range(12)) if router.pick(name.encode()).version == "2"}
    finally:
        Hanging.go.set()
        Bad.fails = None
        await plane.stop()
    late = {f"i{place}" for place, each in enumerate(replies) if isinstance(each, DeadlineExceeded)}
    assert 0 < len(held) < 12
    assert held <= late
    assert all(each.model_version == "1" for each in replies if not isinstance(each, BaseException))
    found = failures(kit)
    assert {each.request_id for each in found} == late
    assert {(each.version, each.kind) for each in found if each.request_id in held} == {("2", "DeadlineExceeded")}


@on_a_loop
async def test_without_a_rollout_nothing_is_assigned_and_no_failure_is_logged(bad: type[Bad]) -> None:
    kit = Kit()
    kit.publish("1", "2", weights=HALVES)
    async with serving(kit, bad) as plane:
        bad.fails = ModelFailed
        replies = await asyncio.gather(
            *(ask(plane, keyed_request(f"C{number}")) for number in range(20)), return_exceptions=True
        )
        assert any(isinstance(each, ModelFailed) for each in replies)
        found = logged(kit, [each for each in replies if not isinstance(each, BaseException)])
        assert "mainspring_arm_seconds_count" not in plane.metrics.text().decode()
    kit.log.compact()
    assert {(each.rollout, each.weight, each.unit) for each in found} == {("", 1.0, 0)}
    assert (kit.log.failures(""), kit.log.failures("r1")) == ([], [])


@on_a_loop
async def test_the_champion_alone_has_its_failures_logged_while_a_rollout_is_on(bad: type[Bad]) -> None:
    """As beside a shadow: there is nothing to assign, so no key is looked at."""
    kit = Kit()
    kit.roll_out("2", weights=(1.0,))
    async with serving(kit, bad) as plane:
        (found,) = logged(kit, [await ask(plane, keyed_request("AA"))])
        bad.fails = ModelFailed
        with pytest.raises(ModelFailed):
            await ask(plane, keyed_request("AA"))
    assert (found.rollout, found.weight, found.unit) == ("r1", 1.0, 0)
    assert [(each.weight, each.unit, each.count) for each in failures(kit)] == [(1.0, 0, 1)]


@on_a_loop
async def test_a_storm_of_failures_is_counted_in_few_records() -> None:
    class Counting(type(Kit().log)):  # type: ignore[misc]
        handed: list[int] = []

        def fail(self, given: Any) -> None:
            self.handed.append(len(given))
            super().fail(given)

    log = Counting()
    buffer = FailureBuffer(log)
    for number in range(5_000):
        buffer.add(failure(number, version=str(number % 2), kind=("A", "B", "C")[number % 3]))
    buffer.flush()
    buffer.flush()  # which has nothing to do
    assert log.handed == [2 * 64 + 6]
    log.compact()
    found = log.failures("r1")
    assert sum(each.count for each in found) == 5_000
    by_arm: Counter[str] = Counter()
    for each in found:
        by_arm[each.version] += each.count
    assert by_arm == {"0": 2_500, "1": 2_500}


@on_a_loop
@pytest.mark.parametrize("alike", [0, 1_000], ids=["every key fails", "and one of them all the time"])
async def test_a_storm_of_failures_is_evidence_also_where_keys_stay_in_their_arm(alike: int) -> None:
    kit = Kit()
    buffer = FailureBuffer(kit.log)
    for entry in range(4):
        for _ in range(alike):
            buffer.add(failure(0, rollout="r1", version="2", weight=0.5, unit=77))
        for number in range(100 * entry, 100 * (entry + 1)):
            buffer.add(failure(number, rollout="r1", version="2", weight=0.5, unit=1_000 + number))
        buffer.flush()
    kit.log.compact()
    found = kit.log.observations("r1")
    assert found is not None
    plan = ms.Rollout("late", assign="key", guards=[ms.guards.errors()]).plan
    state = msgspec.structs.replace(rollout("r1")[0], plan=plan, began_at=0)
    evidence = observed(state, found.batches)
    assert sum(each.candidate for each in evidence.events["errors"]) >= 4 * 64
    [errors] = judge(plan, evidence).readings
    assert errors.breach


@on_a_loop
async def test_a_share_of_failures_is_logged_with_the_share(bad: type[Bad]) -> None:
    kit = Kit()
    kit.roll_out("1", "2", weights=(0.0, 1.0), log=Log(share=0.5))
    async with serving(kit, bad) as plane:
        bad.fails = ModelFailed
        for number in range(60):
            with pytest.raises(ModelFailed):
                await ask(plane, keyed_request("AA", id=f"i{number}"))
    found = failures(kit)
    assert {each.share for each in found} == {0.5}
    assert 10 < sum(each.count for each in found) < 50


@on_a_loop
async def test_numbers_by_arm_end_with_the_rollout() -> None:
    kit = Kit()
    kit.roll_out("1", "2", weights=(0.75, 0.25))
    async with serving(kit, OnnxExecutor) as plane:
        await ask(plane, keyed_request("AA"))
        text = plane.metrics.text().decode()
        assert 'mainspring_arm_weight{endpoint="late-arrival",version="2"} 0.25' in text
        assert f'mainspring_route_revision{{endpoint="late-arrival"}} {float(kit.routes.revision())}' in text
        kit.publish("2")
        await wait_until_async(lambda: set(plane.served["late-arrival"].lanes) == {"2"})
        text = plane.metrics.text().decode()
        assert "mainspring_arm_seconds_count" not in text
        assert set(plane.metrics.of("late-arrival").arms) == {"2"}


def test_routes_of_an_older_version_are_read(tmp_path: Path) -> None:
    engine = memory_catalog()
    before = {
        "endpoint": "late", "model": "m", "arms": [{"version": "1", "digest": "d", "weight": 1.0}], "deadline_us": 5,
        "max_queue_rows": 7, "log": {"share": 1.0, "sync": False, "personal": "encrypt"}, "without_store": "refuse",
        "revision": 0,
    }  # fmt: skip
    with engine.begin() as connection:
        connection.execute(sa.insert(routes_table).values(endpoint="late", route=json.dumps(before)))
        connection.execute(sa.insert(revision_table).values(only=1, revision=3))
    (found,) = CatalogRoutes(engine).current().values()
    assert (found.rollout, found.assign, found.salt, found.revision) == ("", "key", "", 3)
    file = CopyFile(tmp_path / "copy", of="here", pepper=b"pepper")
    file.save(Kept(of="here", confirmed_at=1, revision=3, highest=3, routes={"late": found}, keys={}))
    content = json.loads(file.path.read_bytes()[32:])
    for name in ("rollout", "assign", "salt", "by"):
        del content["routes"]["late"][name]
    body = json.dumps(content).encode()
    file.path.write_bytes(file._tag(body) + body)
    kept = file.load()
    assert kept is not None
    assert kept.routes == {"late": found}
