"""Shadow: pairs are the candidate's answers to the champion's own inputs, whatever fails on the way."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.serving import FEATURES, KEY, NOW, Kit, bundle, full_request, keyed_request, model, route
from kit.tensors import WIDE, sums
from mainspring.core.errors import Invalid, Unavailable
from mainspring.core.time import ManualClock
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.registry.model import Bundle
from mainspring.serving.adapters.onnx import OnnxExecutor
from mainspring.serving.model import Arm
from mainspring.serving.plane import runtime
from mainspring.serving.plane.executor import ModelFailed
from mainspring.serving.plane.shadow import SHADOWED, Pairs, ShadowScorer
from unit.serving.test_arms import ask
from unit.serving.test_live import on_a_loop, serving

CANDIDATE = bundle(1.0, model_onnx=model(1.0))


def scorer(made: Bundle = CANDIDATE, executor: Any = OnnxExecutor, online: Any = None) -> ShadowScorer:
    return ShadowScorer(runtime.load(made, online or MemoryOnlineStore(), executor), ManualClock(NOW))


def columns(kit: Kit) -> dict[str, list[Any]]:
    """Return all that was logged, as a follower of the log reads it."""
    kit.log.compact()
    found = kit.log.arrivals("late-arrival", 0, columns=SHADOWED)
    assert found is not None
    tables = [each.to_pydict() for each in found.batches]
    return {name: [value for table in tables for value in table[name]] for name in SHADOWED}


def rows_of(*features: dict[str, Any], personal: str = "[]", **given: Any) -> dict[str, list[Any]]:
    """Return logged predictions with these inputs, numbered from 0."""
    texts = {"keys": "{}", "request": "{}", "outputs": '{"probability":0.5}', "personal": personal, **given}
    made = {name: [texts[name]] * len(features) for name in texts}
    made["features"] = [msgspec.json.encode(each).decode() for each in features]
    return {**made, "id": [f"p{number}" for number in range(len(features))]}


def direct(made: Bundle, features: list[dict[str, Any]]) -> list[float]:
    """Return the answers of the executor itself to rows one by one."""
    executor = OnnxExecutor(made)
    try:
        return [
            float(executor.predict({name: [value] for name, value in row.items()}, 1)["probability"][0])
            for row in features
        ]
    finally:
        executor.close()


@on_a_loop
async def test_pairs_of_what_was_served_are_the_answers_of_both() -> None:
    kit = Kit()
    kit.publish("1")
    async with serving(kit, OnnxExecutor) as plane:
        bodies = [full_request(), *(keyed_request(f"C{number}", "AA") for number in range(5))]
        await asyncio.gather(*(ask(plane, body) for body in bodies))
    logged = columns(kit)
    pairs = scorer().score(logged)
    assert sorted(pairs.ids) == sorted(logged["id"])
    found = {each.id: each for each in kit.log.recent(limit=100)}
    features = [dict(found[each].features) for each in pairs.ids]
    assert pairs.champion == [found[each].outputs["probability"] for each in pairs.ids]
    assert pairs.candidate == direct(CANDIDATE, features)
    assert pairs.candidate_outputs == [{"probability": value} for value in pairs.candidate]
    assert (set(pairs.errors), set(pairs.sources), dict(pairs.skipped)) == ({None}, {"logged"}, {})
    assert all(took > 0 for took in pairs.compute_us)
    again = scorer(bundle()).score(logged)  # the champion itself
    assert again.candidate == again.champion


@on_a_loop
async def test_tensors_are_answered_from_the_log_unless_they_were_too_large_for_it() -> None:
    kit, made = Kit(), sums(KEY)
    kit.bundles.save(made)

    kit.routes.publish([route(Arm("1", made.digest))])
    body = {"inputs": [{"name": "x", "shape": [2, WIDE], "datatype": "FP32", "data": [1.5] * WIDE + [2.5] * WIDE}]}
    async with serving(kit, OnnxExecutor) as plane:
        await ask(plane, body)
    logged = columns(kit)
    pairs = scorer(made).score(logged)
    assert pairs.candidate == pairs.champion
    assert len(pairs.ids) == 2
    logged["features"] = ['{"x":"float32[4096]"}', logged["features"][1]]
    pairs = scorer(made).score(logged)
    assert (len(pairs.ids), dict(pairs.skipped)) == (1, {"inputs": 1})


class Picky(OnnxExecutor):
    """A candidate that fails on hours from `limit` on, with an error of `kind`."""

    kind: type[Exception] = ModelFailed
    limit = 24

    def predict(self, inputs: Any, rows: int) -> dict[str, Any]:
        if any(value is not None and value >= self.limit for value in inputs["Schedule.hour"]):
            raise self.kind("Too late.")
        return super().predict(inputs, rows)


def hours(*values: int) -> list[dict[str, Any]]:
    rest = {name: given[0] for name, (_, given) in FEATURES.items()}
    return [{**rest, "Schedule.hour": value} for value in values]


@settings(max_examples=25)
@given(
    st.lists(st.integers(0, 47), min_size=1, max_size=40), st.sampled_from([ModelFailed, Invalid, ZeroDivisionError])
)
def test_a_row_that_fails_costs_no_other_its_answer(values: list[int], kind: type[Exception]) -> None:
    class Failing(Picky):
        pass

    Failing.kind, features = kind, hours(*values)
    pairs = scorer(executor=Failing).score(rows_of(*features))
    assert pairs.ids == [f"p{number}" for number in range(len(values))]
    assert pairs.errors == [kind.__name__ if value >= 24 else None for value in values]
    answers = iter(direct(CANDIDATE, [row for row in features if row["Schedule.hour"] < 24]))
    assert pairs.candidate == [None if error else pytest.approx(next(answers), abs=1e-6) for error in pairs.errors]
    assert len(pairs.compute_us) == len(pairs.sources) == len(values)


@on_a_loop
async def test_other_features_are_read_by_key_as_of_now_and_say_so() -> None:
    kit = Kit()
    kit.publish("1")
    async with serving(kit, OnnxExecutor) as plane:
        await ask(plane, keyed_request("AA", "UA"))
        await ask(plane, full_request())
    logged = columns(kit)
    lacking = [msgspec.json.decode(each) for each in logged["features"]]
    for each in lacking:
        each["Champion.own"] = each.pop("Carrier.flights_1h")
    logged["features"] = [msgspec.json.encode(each).decode() for each in lacking]
    pairs = scorer().score(logged)
    assert (pairs.sources, pairs.errors) == (["now", "now"], [None, None])
    assert dict(pairs.skipped) == {"inputs": 2}  # of the request that has no keys
    as_of_now = {"Carrier.flights_1h": 0, "Carrier.delay_1h": None, "Schedule.thousands": 0.5, "Schedule.hour": 2}
    assert pairs.candidate == pytest.approx(direct(CANDIDATE, [as_of_now] * 2), abs=1e-6)


class AwayStore(MemoryOnlineStore):
    def read(self, *_: Any, **__: Any) -> Any:
        raise Unavailable("It is away.")


def test_a_store_that_is_away_is_no_failure_of_the_candidate() -> None:
    keys = '{"carrier":"AA","flight_id":1}'
    request = f'{{"distance":500.0,"scheduled_at":{NOW}}}'
    logged = rows_of({}, keys=keys, request=request)
    assert scorer().score(logged).sources == ["now"]
    with pytest.raises(Unavailable):
        scorer(online=AwayStore()).score(logged)


def test_values_that_were_left_out_make_a_row_incomparable_and_sealed_ones_do_not() -> None:
    (row,) = hours(3)
    del row["Schedule.hour"]
    pairs = scorer().score(rows_of(row, personal='["Schedule.hour"]'))
    assert (pairs.ids, dict(pairs.skipped)) == ([], {"personal": 1})
    assert dict(scorer().score(rows_of(row)).skipped) == {"inputs": 1}
    complete = scorer().score(rows_of(*hours(3), personal='["email"]'))  # which the candidate does not read
    assert complete.errors == [None]


def test_what_a_fallback_answered_is_no_pair() -> None:
    pairs = scorer().score(rows_of(*hours(3), outputs='{"(fallback)":"{}"}'))
    assert (pairs.ids, dict(pairs.skipped)) == ([], {"fallback": 1})


def test_nothing_gives_nothing() -> None:
    assert scorer().score({name: [] for name in SHADOWED}) == Pairs()


def test_several_values_count_by_their_first() -> None:
    (row,) = hours(3)
    pairs = scorer().score(rows_of(row, outputs='{"classes":[0.25,0.75],"label":"a"}'))
    assert pairs.champion == [0.25]
    assert np.isfinite(pairs.candidate[0] or np.nan)
