"""What is no longer served: its executor is closed when nobody can ask it any more, and not before."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any

import msgspec
import pytest

from kit.depth import examples
from kit.fleet import answer_of
from kit.serving import KEY, Kit, bundle, full_request, golden, model, route
from kit.waiting import wait_until_async
from mainspring.core.errors import Corrupt, Invalid, Unavailable
from mainspring.project.catalog import memory_catalog
from mainspring.registry.adapters.memory import MemoryBlobs
from mainspring.registry.bundles import Bundles
from mainspring.registry.model import Bundle
from mainspring.security.model import KeyScope, Principal
from mainspring.security.quota import Quota
from mainspring.serving.adapters.catalog import CatalogRoutes
from mainspring.serving.adapters.onnx import OnnxExecutor
from mainspring.serving.model import Arm, Route, Unusual
from mainspring.serving.outputs import Outputs
from mainspring.serving.plane import runtime
from mainspring.serving.plane.catalog_copy import CatalogCopy
from mainspring.serving.plane.inference import infer
from mainspring.serving.plane.lane import monotonic_us
from mainspring.serving.plane.plane import DataPlane
from mainspring.serving.protocol.codec import decode_infer, encode

pytestmark = pytest.mark.slow


def on_a_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        asyncio.run(test(*arguments, **named))

    return run


class Counting(OnnxExecutor):
    """An executor that knows how often it was closed, and whether it was asked afterwards."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        self.digest = bundle.digest
        self.closed = 0
        self.running = 0
        self.misused = False

    def predict(self, inputs: Any, rows: int) -> dict[str, Any]:
        self.misused |= self.closed > 0
        self.running += 1
        try:
            return super().predict(inputs, rows)
        finally:
            self.running -= 1

    def close(self) -> None:
        self.misused |= self.running > 0
        self.closed += 1
        super().close()


class Made(list[Counting]):
    """A loader that remembers what it made."""

    def __call__(self, bundle: Bundle) -> Counting:
        self.append(Counting(bundle))
        return self[-1]

    @property
    def closed(self) -> list[int]:
        return [each.closed for each in self]


def plane_of(kit: Kit, made: Callable[[Bundle], Any]) -> DataPlane:
    return DataPlane(
        routes=kit.routes, bundles=kit.bundles, online=kit.online, log=kit.log, executors=made, clock=kit.clock,
        threads=2,
    )  # fmt: skip


@asynccontextmanager
async def serving(kit: Kit, made: Callable[[Bundle], Any]) -> AsyncIterator[DataPlane]:
    plane = plane_of(kit, made)
    plane.start()
    try:
        await asyncio.wait_for(plane.preloaded(), 60)
        yield plane
    finally:
        await plane.stop()


def rolled(*bundles: Bundle, weights: tuple[float, ...], rollout: str = "r1", endpoint: str = "late-arrival") -> Route:
    """Return a route whose arms are these bundles, numbered from 1."""
    arms = [Arm(str(place), made.digest, weights[place - 1]) for place, made in enumerate(bundles, 1)]
    return msgspec.structs.replace(route(*arms, endpoint=endpoint), rollout=rollout)


def versions(plane: DataPlane, endpoint: str = "late-arrival") -> set[str]:
    return set(plane.served[endpoint].lanes) if endpoint in plane.served else set()


@on_a_loop
async def test_what_is_no_longer_served_is_closed_and_at_the_end_all_is() -> None:
    kit, made = Kit(), Made()
    kit.publish("1")
    async with serving(kit, made) as plane:
        kit.publish("2")
        await wait_until_async(lambda: versions(plane) == {"2"} and made[0].closed == 1)
        assert made.closed == [1, 0]
    assert made.closed == [1, 1]


@on_a_loop
async def test_whoever_holds_a_lane_may_still_ask_it() -> None:
    """As a request does whose body came slowly, while another version took the place."""
    kit, made = Kit(), Made()
    kit.publish("1")
    async with serving(kit, made) as plane:
        lane = plane.endpoint("late-arrival").lanes["1"]
        for version in ("2", "1"):  # and back: to an executor of its own
            kit.publish(version)
            await wait_until_async(lambda version=version: versions(plane) == {version})
        await wait_until_async(lambda: made.closed == [0, 1, 0])
        assert plane.served["late-arrival"].lanes["1"] is not lane
        columns = {each["name"]: each["data"] for each in full_request()["inputs"]}
        assert len(lane.runtime.executor.predict(columns, 2)["probability"]) == 2
        del lane
        await wait_until_async(lambda: made.closed == [1, 1, 0])
    assert made.closed == [1, 1, 1]
    assert not any(each.misused for each in made)


@on_a_loop
async def test_one_model_behind_two_endpoints_is_closed_when_both_are_gone() -> None:
    kit, made, one = Kit(), Made(), bundle()
    kit.bundles.save(one)
    both = [route(Arm("1", one.digest), endpoint=name) for name in ("a", "b")]
    kit.routes.publish(both)
    async with serving(kit, made) as plane:
        for left, closed in ((both[:1], [0]), ([], [1])):
            kit.routes.publish(left)
            await wait_until_async(lambda left=left: len(plane.served) == len(left))
            await wait_until_async(lambda closed=closed: made.closed == closed)
    assert made.closed == [1]


@on_a_loop
async def test_what_was_loaded_beside_a_version_that_cannot_be_is_closed() -> None:
    kit, made = Kit(), Made()
    kit.publish("1")
    async with serving(kit, made) as plane:
        good, lost = bundle(3.0, model_onnx=model(3.0)), bundle(4.0, model_onnx=model(4.0))
        kit.bundles.save(good)  # and not the other
        kit.routes.publish([route(Arm("3", good.digest), Arm("4", lost.digest))])
        await wait_until_async(lambda: "late-arrival" in plane.refused)
        assert versions(plane) == {"1"}
        await wait_until_async(lambda: made.closed[:2] == [0, 1])
    assert set(made.closed) == {1}


def test_a_model_that_fails_its_golden_rows_is_closed() -> None:
    made = Made()
    wrong = bundle(model_onnx=model(1.0), golden_json=golden(2.0))
    with pytest.raises(Corrupt):
        runtime.load(wrong, Kit().online, made)
    assert made.closed == [1]


@on_a_loop
async def test_what_is_being_loaded_when_it_stops_is_closed() -> None:
    kit, made = Kit(), Made()
    kit.publish("1")
    loading, go_on = threading.Event(), threading.Event()

    def slowly(bundle: Bundle) -> Counting:
        found = made(bundle)
        loading.set()
        assert go_on.wait(60)
        return found

    plane = plane_of(kit, slowly)
    plane.start()
    await wait_until_async(loading.is_set)
    stopping = asyncio.create_task(plane.stop())
    await asyncio.sleep(0.05)
    go_on.set()
    await stopping
    await wait_until_async(lambda: made.closed == [1])


async def ask(plane: DataPlane) -> tuple[str, list[float]]:
    """Return the version that answered, and what."""
    asked = decode_infer(encode(full_request())).asked
    served = plane.endpoint("late-arrival")
    await asyncio.sleep(0)  # as where a body comes after its head
    reply = await infer(asked, served, version="", principal="key", received_us=monotonic_us())
    return reply.model_version, list(reply.outputs[0].data)


SWAPS = examples(gate=2, deep=8)


@pytest.mark.parametrize("slow", [False, True], ids=["inline", "in threads"])
@on_a_loop
async def test_swaps_under_load_close_each_model_once_and_lose_no_request(slow: bool) -> None:
    kit, made, done, told = Kit(), Made(), asyncio.Event(), list[str]()
    kit.publish("1", slow=slow)

    async def load(plane: DataPlane) -> None:
        while not done.is_set():
            version, found = await ask(plane)
            assert found == pytest.approx(answer_of(version), abs=1e-5)
            told.append(version)
            await asyncio.sleep(0)

    async with serving(kit, made) as plane, asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(load(plane))
        for swap in range(SWAPS):
            version = str(2 - swap % 2)
            kit.publish(version, slow=slow)
            await wait_until_async(lambda version=version: versions(plane) == {version} and told[-8:] == [version] * 8)
            await wait_until_async(lambda: made.closed == [1] * (len(made) - 1) + [0])
        done.set()
    assert made.closed == [1] * (SWAPS + 1)
    assert not any(each.misused for each in made)
    assert set(told) == {"1", "2"}


class Failing(Counting):
    def predict(self, inputs: Any, rows: int) -> dict[str, Any]:
        if any(name.endswith("hour") and 99 in list(values) for name, values in inputs.items()):
            raise Invalid("Not this hour.")
        return super().predict(inputs, rows)


@on_a_loop
async def test_a_request_that_failed_keeps_no_model() -> None:
    """Its error leads to the frames that it passed through, and those to the lane."""
    kit, made = Kit(), list[Counting]()

    def make(bundle: Bundle) -> Counting:
        made.append(Failing(bundle))
        return made[-1]

    kit.publish("1")
    async with serving(kit, make) as plane:
        body = full_request()
        body["inputs"][-1]["data"] = [99, 99]
        asked = decode_infer(encode(body)).asked
        with pytest.raises(Invalid):
            await infer(asked, plane.endpoint("late-arrival"), version="", principal="k", received_us=monotonic_us())
        kit.publish("2")
        await wait_until_async(lambda: versions(plane) == {"2"})
        await wait_until_async(lambda: made[0].closed == 1)


@on_a_loop
async def test_another_table_of_the_same_revision_is_followed_after_an_absence() -> None:
    """As of a backup, in which something else was published since."""
    kit, away = Kit(), False
    kit.publish("1")

    def connect() -> Any:
        if away:
            raise Unavailable("It is away.")
        return kit.routes, kit.keys

    copy = CatalogCopy(connect, kit.clock)
    plane = DataPlane(
        routes=copy, bundles=kit.bundles, online=kit.online, log=kit.log, executors=Made(), clock=kit.clock,
        threads=2, catalog=copy,
    )  # fmt: skip
    plane.start()
    try:
        await wait_until_async(lambda: versions(plane) == {"1"})
        away = True
        since = copy.age_s
        await wait_until_async(lambda: copy.age_s > since + 1)  # by then it was looked for in vain
        kit.routes = CatalogRoutes(memory_catalog())
        kit.publish("2")
        away = False
        await wait_until_async(lambda: versions(plane) == {"2"})
        assert copy.revision() == 1
    finally:
        await plane.stop()


CONTROL, CANDIDATE, OTHER = (bundle(bias, model_onnx=model(bias)) for bias in (0.0, 1.0, 2.0))


def stored(*bundles: Bundle) -> Kit:
    kit = Kit()
    for each in bundles:
        kit.bundles.save(each)
    return kit


@on_a_loop
async def test_the_way_back_waits_for_no_bundle_that_is_being_loaded() -> None:
    """A candidate takes long to load, for this endpoint or another; meanwhile routes to what is there are followed."""
    kit, made, loading, go_on = stored(CONTROL, CANDIDATE, OTHER), Made(), threading.Event(), threading.Event()

    def load(bundle: Bundle) -> Counting:
        if bundle.digest == OTHER.digest:
            loading.set()
            assert go_on.wait(60)
        return made(bundle)

    both = rolled(CONTROL, CANDIDATE, weights=(0.5, 0.5))
    kit.routes.publish([both])
    try:
        async with serving(kit, load) as plane:
            slow = rolled(CONTROL, OTHER, weights=(0.5, 0.5), endpoint="slow")
            kit.routes.publish([both, slow])
            await wait_until_async(loading.is_set)
            await wait_until_async(lambda: "slow" in plane.served)
            assert versions(plane, "slow") == {"1"}  # its control alone, which does not count
            assert (plane.served["slow"].route.rollout, plane.refused) == ("", set())
            kit.routes.publish([rolled(CONTROL, CANDIDATE, weights=(0.9, 0.1)), slow])
            await wait_until_async(lambda: plane.served["late-arrival"].route.arms[1].weight == 0.1)
            kit.routes.publish([rolled(CONTROL, weights=(1.0,), rollout="")])
            await wait_until_async(lambda: versions(plane) == {"1"} and "slow" not in plane.served)
            assert not go_on.is_set()
            go_on.set()
            await wait_until_async(lambda: sorted(made.closed) == [0, 1, 1])  # nobody wants the slow one any more
            kit.routes.publish([both, slow])
            await wait_until_async(lambda: versions(plane, "slow") == {"1", "2"})
            assert plane.served["slow"].route.rollout == "r1"
    finally:
        go_on.set()


@on_a_loop
async def test_a_rollout_whose_candidate_is_lost_begins_with_its_control_and_ends_at_once() -> None:
    kit = stored(CONTROL)
    kit.routes.publish([rolled(CONTROL, CANDIDATE, weights=(0.5, 0.5))])
    async with serving(kit, Made()) as plane:
        assert {(await ask(plane))[0] for _ in range(8)} == {"1"}
        assert plane.unready() is None
        assert set(plane.refused) == {"late-arrival"}
        kit.log.compact()
        assert {each.rollout for each in kit.log.recent()} == {""}
        kit.routes.publish([rolled(CONTROL, weights=(1.0,), rollout="")])
        await wait_until_async(lambda: not plane.refused)
        assert versions(plane) == {"1"}


@on_a_loop
async def test_what_a_stopped_rollout_had_is_not_kept_for_want_of_the_next_ones() -> None:
    kit, made = stored(CONTROL, CANDIDATE), Made()
    kit.routes.publish([rolled(CONTROL, CANDIDATE, weights=(0.5, 0.5))])
    async with serving(kit, made) as plane:
        assert versions(plane) == {"1", "2"}
        kit.routes.publish([rolled(CONTROL, OTHER, weights=(0.5, 0.5), rollout="r2")])
        await wait_until_async(lambda: set(plane.refused) == {"late-arrival"})
        assert versions(plane) == {"1"}
        kit.bundles.save(OTHER)  # it is tried again
        await wait_until_async(lambda: plane.served["late-arrival"].route.rollout == "r2")
        assert [lane.runtime.digest for lane in plane.served["late-arrival"].lanes.values()][1] == OTHER.digest


@on_a_loop
async def test_an_arm_without_weight_need_not_be_there() -> None:
    kit = stored(CONTROL)
    kit.routes.publish([rolled(CONTROL, CANDIDATE, weights=(1.0, 0.0))])
    async with serving(kit, Made()) as plane:
        assert (await ask(plane))[0] == "1"
        assert plane.served["late-arrival"].route.rollout == "r1"
        kit.log.compact()
        assert {(each.rollout, each.weight) for each in kit.log.recent()} == {("r1", 1.0)}


@on_a_loop
async def test_a_bundle_that_is_deleted_while_it_serves_goes_on_serving() -> None:
    blobs = MemoryBlobs()
    kit, made = Kit(bundles=Bundles(blobs, KEY.public)), Made()
    for each in (CONTROL, CANDIDATE):
        kit.bundles.save(each)
    kit.routes.publish([rolled(CONTROL, CANDIDATE, weights=(0.5, 0.5))])
    async with serving(kit, made) as plane:
        assert blobs.delete(CANDIDATE.digest)
        kit.routes.publish([rolled(CONTROL, CANDIDATE, weights=(0.0, 1.0))])
        await wait_until_async(lambda: plane.served["late-arrival"].route.arms[1].weight == 1.0)
        assert (await ask(plane))[0] == "2"
        assert not plane.refused


@on_a_loop
async def test_limits_hold_while_their_version_cannot_be_loaded() -> None:
    kit, made = Kit(), Made()
    kit.publish("1")
    async with serving(kit, made) as plane:
        before = plane.served["late-arrival"]
        outputs, unusual = (Outputs(labels=True),), Unusual("flag", share=0.01)
        missing = msgspec.structs.replace(
            route(Arm("2", "f" * 64)), outputs=outputs, unusual=unusual, quotas=(Quota("q", rows=5),)
        )
        kit.routes.publish([missing])
        await wait_until_async(lambda: plane.served["late-arrival"] is not before and bool(plane.refused))
        served = plane.served["late-arrival"]
        assert (served.route.outputs, served.route.quotas) == (outputs, missing.quotas)
        assert served.route.arms == before.route.arms
        screen = served.lanes["1"].screen
        assert screen is not None
        assert screen.policy == unusual
        assert served.quotas is not None
        assert not served.quotas.charge(Principal("k1", "test", frozenset(KeyScope)), 5).labels
