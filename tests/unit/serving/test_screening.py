"""Unusual rows at an endpoint: flagged, answered by a fallback, or refused without the requests beside them; what is
unchecked is counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from kit.serving import NOW, bundle, route
from kit.tensors import sums
from mainspring.core.errors import DeadlineExceeded, Invalid, QuotaExceeded
from mainspring.core.time import ManualClock
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.ledger.adapters.memory import MemoryLedger
from mainspring.ledger.model import FALLBACK as LOGGED_FALLBACK
from mainspring.ledger.model import score_of
from mainspring.registry.model import Bundle, TensorSpec
from mainspring.security.model import KeyScope, Principal
from mainspring.security.quota import Quota
from mainspring.serving.adapters.onnx import OnnxExecutor
from mainspring.serving.model import Arm, Unusual
from mainspring.serving.plane import runtime
from mainspring.serving.plane.counts import Counts
from mainspring.serving.plane.inference import infer
from mainspring.serving.plane.lane import Lane, monotonic_us
from mainspring.serving.plane.live import Router, Served
from mainspring.serving.plane.metering import Quotas
from mainspring.serving.plane.metrics import EndpointMetrics
from mainspring.serving.plane.screening import fallback, screen_of, with_answer
from mainspring.serving.protocol.asked import Answered, Asked
from mainspring.serving.protocol.tensor import DTYPES, Tensor
from mainspring.stats.unusual import Scoring, calibrated, fit
from unit.serving.test_plane import ask, on_a_loop, x

FLAG, REFUSE = Unusual("flag"), Unusual("refuse")
FALLBACK = Unusual("fallback", answer={"probability": 0.25})
KEY = "Schedule.thousands"


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def scoring() -> Scoring:
    rng = np.random.default_rng(0)
    rows = {
        "Carrier.flights_1h": rng.poisson(3, 4_000),
        "Carrier.delay_1h": [None if gone else 10.0 for gone in rng.random(4_000) < 0.5],
        "Schedule.thousands": rng.uniform(0.1, 3, 4_000),
        "Schedule.hour": rng.integers(0, 24, 4_000),
    }
    found = fit({name: values[:2_000] for name, values in rows.items()})
    assert found is not None
    return calibrated(found, {name: values[2_000:] for name, values in rows.items()})


def serve(threads: ThreadPoolExecutor, policy: Unusual | None, made: Bundle | None = None) -> tuple[Served, Lane]:
    """Return an endpoint; its version can be checked unless it is given."""
    loaded = runtime.load(made or bundle(), MemoryOnlineStore(), OnnxExecutor)
    lane = Lane(
        "late-arrival",
        "1",
        loaded if made else replace(loaded, scoring=scoring()),
        log=MemoryLedger(),
        clock=ManualClock(NOW),
        metrics=EndpointMetrics(),
        threads=threads,
        reads=threads,
        max_queue_rows=4096,
        unusual=policy,
    )
    arm = Arm("1", loaded.digest, 1.0)
    return Served(route(arm), Router("late-arrival", [arm]), {"1": lane}), lane


def rows(*thousands: float) -> Asked:
    count = len(thousands)
    return Asked(
        None,
        [
            Tensor("Carrier.flights_1h", "INT64", (count,), [3] * count),
            Tensor("Carrier.delay_1h", "FP32", (count,), [None] * count),
            Tensor("Schedule.thousands", "FP64", (count,), list(thousands)),
            Tensor("Schedule.hour", "INT64", (count,), [7] * count),
        ],
    )


@on_a_loop
async def test_flagged_rows_are_answered_and_named(threads: ThreadPoolExecutor) -> None:
    behind, lane = serve(threads, FLAG)
    answers = await asyncio.gather(ask(behind, rows(0.5, 900.0)), ask(behind, rows(1.0)), ask(behind, rows(-80.0)))
    assert [each.parameters["unusual"] for each in answers] == [["", KEY], [""], [KEY]]
    assert lane.metrics.screened == {"flagged": 2}
    unasked, _ = serve(threads, None)
    plain = await ask(unasked, rows(0.5, 900.0))
    assert "unusual" not in plain.parameters
    assert plain.outputs[0].data.tolist() == answers[0].outputs[0].data.tolist()


@on_a_loop
async def test_a_request_with_an_unusual_row_is_refused_alone(threads: ThreadPoolExecutor) -> None:
    behind, lane = serve(threads, REFUSE)
    asked = rows(0.5, 900.0), rows(1.0, 2.0), rows(-80.0), rows(0.2)
    first, second, third, last = await asyncio.gather(*(ask(behind, each) for each in asked), return_exceptions=True)
    for error, place in ((first, 1), (third, 0)):
        assert isinstance(error, Invalid)
        assert f"Row {place} is unlike" in error.what
        assert KEY in error.what
        assert "900" not in f"{error}"
    plain, _ = serve(threads, None)
    for answered, each in ((second, asked[1]), (last, asked[3])):
        wanted = (await ask(plain, each)).outputs[0].data.tolist()
        assert answered.outputs[0].data.tolist() == wanted
    assert len(lane.recorder._log.recent()) == 3
    assert lane.metrics.screened == {"refused": 2}
    with pytest.raises(Invalid, match="unlike"):  # nobody is left in the batch
        await ask(behind, rows(900.0))
    assert (await ask(behind, rows(1.0))).outputs


@on_a_loop
async def test_rows_that_cannot_be_checked_are_answered_and_counted(threads: ThreadPoolExecutor) -> None:
    from kit.serving import KEY as signing

    behind, lane = serve(threads, REFUSE, sums(signing))
    assert (await ask(behind, Asked(None, x(1.0, 1e30)))).outputs
    assert lane.metrics.screened == {"unchecked": 2}
    flagged, _ = serve(threads, FLAG, sums(signing))
    assert "unusual" not in (await ask(flagged, Asked(None, x(1e30)))).parameters
    share, lane = serve(threads, Unusual("flag", share=0.0005))  # 2,000 rows cannot tell
    assert "unusual" not in (await ask(share, rows(900.0))).parameters
    assert lane.metrics.screened == {"unchecked": 1}


@on_a_loop
async def test_many_rows_are_screened_beside_the_loop_with_the_same_result(threads: ThreadPoolExecutor) -> None:
    behind, _ = serve(threads, FLAG)
    many = [0.5] * 1_023 + [900.0]
    answered = await ask(behind, rows(*many))
    assert answered.parameters["unusual"] == [""] * 1_023 + [KEY]
    refusing, _ = serve(threads, REFUSE)
    found = await asyncio.gather(ask(refusing, rows(*many)), ask(refusing, rows(*many[:900])), return_exceptions=True)
    assert isinstance(found[0], Invalid)
    assert "Row 1023" in found[0].what
    assert len(found[1].outputs[0].data) == 900  # type: ignore[union-attr]
    assert (await ask(refusing, rows(1.0))).outputs


@on_a_loop
async def test_a_screen_is_made_again_only_for_another_policy(threads: ThreadPoolExecutor) -> None:
    _, lane = serve(threads, FLAG)
    first = lane.screen
    assert screen_of(FLAG, lane.runtime, first) is first
    assert screen_of(None, lane.runtime, first) is None
    other = screen_of(Unusual("refuse", share=0.01), lane.runtime, first)
    assert other is not None
    assert other.refuses


@on_a_loop
async def test_a_fallback_answers_the_unusual_rows_alone_and_the_log_says_so(threads: ThreadPoolExecutor) -> None:
    behind, lane = serve(threads, FALLBACK)
    plain, _ = serve(threads, None)
    asked = rows(0.5, 900.0, 1.0), rows(1.0), rows(-80.0)
    answers = await asyncio.gather(*(ask(behind, each) for each in asked))
    wanted = [(await ask(plain, each)).outputs[0].data.tolist() for each in asked]
    wanted[0][1] = wanted[2][0] = 0.25
    assert [each.outputs[0].data.tolist() for each in answers] == wanted
    assert {each.outputs[0].data.dtype for each in answers} == {np.dtype("float32")}
    assert [each.parameters["unusual"] for each in answers] == [["", KEY, ""], [""], [KEY]]
    assert lane.metrics.screened == {"fallback": 2}
    log = lane.recorder._log
    logged = [[log.find(id_) for id_ in each.parameters["prediction_ids"]] for each in answers]
    assert [[each.fallback for each in made] for made in logged] == [[False, True, False], [False], [True]]
    assert logged[0][1].outputs == {LOGGED_FALLBACK: '{"probability":0.25}'}
    assert logged[0][1].features["Schedule.thousands"] == 900.0
    assert [score_of(each) for each in logged[0]] == [wanted[0][0], None, wanted[0][2]]


@on_a_loop
async def test_a_fallback_that_does_not_fit_a_version_refuses(threads: ThreadPoolExecutor) -> None:
    behind, _ = serve(threads, Unusual("fallback", answer={"score": 0.25}))
    with pytest.raises(Invalid, match="unlike"):
        await ask(behind, rows(900.0))
    assert (await ask(behind, rows(1.0))).outputs


@pytest.mark.parametrize(
    ("spec", "fits", "wrong"),
    [
        (TensorSpec("o", "FP32", (-1,)), [0.5, 1], ["a", True, None, [0.5], 1e39]),
        (TensorSpec("o", "FP64", (-1, 2)), [[0.5, 0.5]], [0.5, [0.5], [0.5, None], [[0.5, 0.5]], [[0.5], 0.5]]),
        (TensorSpec("o", "INT8", (-1,)), [-128], [128, 0.5, True]),
        (TensorSpec("o", "BOOL", (-1,)), [True], [1, "true"]),
        (TensorSpec("o", "BYTES", (-1, 1)), [["who knows"]], ["a", [1]]),
        (TensorSpec("o", "FP32", (-1, -1)), [], [0.5, [0.5]]),
    ],
)
def test_a_fallback_has_the_type_and_shape_of_each_output(spec: TensorSpec, fits: list[Any], wrong: list[Any]) -> None:
    for each in fits:
        made = fallback(Unusual("fallback", answer={"o": each}).answer, {"o": spec})["o"]
        outputs = np.zeros((3, *spec.shape[1:]), "<U1" if spec.datatype == "BYTES" else DTYPES[spec.datatype])
        found = with_answer({"o": outputs}, {"o": made}, [2])["o"]
        assert (found.dtype, found.tolist()[2]) == (DTYPES[spec.datatype], each)
        assert found.tolist()[:2] == outputs.tolist()[:2]
    for each in wrong:
        with pytest.raises(Invalid) as error:
            fallback({"o": each}, {"o": spec})
        assert "write" in (error.value.fix or "")
    with pytest.raises(Invalid, match="'o', 'p'"):
        fallback({"o": 1, "p": 2}, {"o": spec})


@pytest.mark.parametrize(
    ("then", "answer"),
    [("fallback", {}), ("flag", {"p": 1}), ("refuse", {"p": 1}), ("fallback", {"p": float("nan")}),
     ("fallback", {"p": np.ones(2)}), ("fallback", [1])],
)  # fmt: skip
def test_a_fallback_that_cannot_be_declared_says_what_to_write(then: str, answer: Any) -> None:
    with pytest.raises(Invalid) as error:
        Unusual(then, answer=answer)
    assert "write" in f"{error.value}"


@pytest.mark.parametrize(("then", "share"), [("ignore", 0.001), ("flag", 0.0), ("flag", 0.5), ("flag", float("nan"))])
def test_a_policy_that_is_none_says_what_to_write(then: str, share: float) -> None:
    with pytest.raises(Invalid) as error:
        Unusual(then, share)
    assert "write" in (error.value.fix or "")


@on_a_loop
async def test_requests_that_are_refused_before_the_model_runs_are_not_charged(threads: ThreadPoolExecutor) -> None:
    behind, _ = serve(threads, REFUSE)
    limited = msgspec.structs.replace(behind.route, quotas=(Quota("q", rows=1),))
    behind = replace(behind, route=limited, quotas=Quotas(limited, Counts()))
    caller = Principal("k1", "test", frozenset(KeyScope))

    def asking(thousands: float, within_us: int = 10_000_000) -> Coroutine[Any, Any, Answered]:
        now = monotonic_us()
        return infer(
            rows(thousands),
            behind,
            version="",
            principal="k1",
            received_us=now,
            deadline_us=now + within_us,
            caller=caller,
        )

    with pytest.raises(Invalid, match="unlike"):
        await asking(900.0)
    expiring = asyncio.create_task(asking(1.0, 50_000))
    await asyncio.sleep(0)  # it is queued
    time.sleep(0.06)
    with pytest.raises(DeadlineExceeded):
        await expiring
    assert (await asking(1.0)).outputs
    with pytest.raises(QuotaExceeded):
        await asking(1.0)
