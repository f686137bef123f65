"""What is logged of a version's predictions: the same requests whenever they are asked, and whole ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.core.errors import Invalid
from mainspring.ledger.adapters.memory import MemoryLedger
from mainspring.ledger.conformance import record_persons, recorder
from mainspring.ledger.model import FALLBACK, Asked, Assigned, Log, Prediction
from mainspring.ledger.recording import Recorder


def logged(ledger: MemoryLedger) -> list[str]:
    return sorted((each.id for each in ledger.recent(limit=10_000)), key=lambda each: int(each[1:]))


@given(st.lists(st.tuples(st.text(max_size=5), st.integers(1, 4)), min_size=1, max_size=30), st.floats(0.05, 1.0))
def test_a_request_is_logged_whole_or_not_at_all_and_its_retry_alike(
    requests: list[tuple[str, int]], share: float
) -> None:
    together, alone = MemoryLedger(), MemoryLedger()
    rows = sum(count for _, count in requests)
    numbers = iter(range(rows))
    by = recorder(alone, Log(share=share))
    for name, count in requests:
        record_persons(by, *(next(numbers) for _ in range(count)), request_id=name)
    recorder(together, Log(share=share)).record(
        at=0,
        ids=[f"p{number}" for number in range(rows)],
        asked=[Asked("key", 1, count, name) for name, count in requests],
        features={"Weather.wind": np.arange(rows, dtype=np.float64)},
        outputs={"probability": list(range(rows))},
    )
    assert logged(together) == logged(alone)
    assert {f"p{each.outputs['probability']}" for each in together.recent(limit=1000)} == set(logged(together))
    taken, number = set(logged(together)), 0
    chosen: dict[str, bool] = {}
    for name, count in requests:
        of = {f"p{each}" in taken for each in range(number, number + count)}
        assert len(of) == 1
        if name:
            assert chosen.setdefault(name, of.pop()) in (True, False)
            assert chosen[name] == (f"p{number}" in taken)
        number += count


def test_the_share_of_many_requests_is_what_was_asked() -> None:
    ledger = MemoryLedger()
    by = recorder(ledger, Log(share=0.1))
    for number in range(5_000):
        record_persons(by, number, request_id=f"request {number}")
    assert abs(len(logged(ledger)) - 500) < 5 * (5_000 * 0.1 * 0.9) ** 0.5
    larger = MemoryLedger()
    by = recorder(larger, Log(share=0.2))
    for number in range(5_000):
        record_persons(by, number, request_id=f"request {number}")
    assert set(logged(ledger)) < set(logged(larger))  # raising the share adds requests


def test_explanations_are_kept_as_the_policy_says_and_never_of_personal_inputs() -> None:
    told = [{"method": "linear", "space": "answer", "exact": True, "residual": 0.0, "document": "{}"}]

    def kept(policy: Log, *columns: str, request_id: str = "") -> int:
        ledger = MemoryLedger()
        recorder(ledger, policy).explained(["p1"], told, columns, at=1, request_id=request_id)
        return len(ledger.explanations("p1"))

    assert kept(Log(), "distance") == 0
    assert kept(Log(explanations=0), "distance") == kept(Log(explanations=100), "distance") == 1
    assert kept(Log(explanations=0), "distance", "Person.age") == 0
    some = [kept(Log(explanations=0, share=0.3), "distance", request_id=f"request {each}") for each in range(200)]
    assert 0 < sum(some) < 200
    for wrong in (-1, 1, 99, 10_001):
        with pytest.raises(Invalid, match="explanations"):
            Log(explanations=wrong)


def test_callers_who_send_other_fields_are_logged_with_what_they_sent() -> None:
    ledger = MemoryLedger()
    by = Recorder(ledger, endpoint="e", model="m", version="1", digest="d", keys=("a",), personal=("secret",))
    sent = [{"a": [1], "b": [2]}, {"b": [3], "a": [4]}, {"a": [5], "secret": ["x"]}, {"a": [6]}, {}]
    for number, each in enumerate(sent):
        ids, asked = [f"p{number}"], [Asked("key", 1, 1)]
        by.record(at=number, ids=ids, asked=asked, sent=each, features={"f": [0]}, outputs={"o": [1.0]})
    found = [(each.keys, each.request, each.personal) for each in reversed(ledger.recent())]
    assert found == [
        ({"a": 1}, {"b": 2}, ()),
        ({"a": 4}, {"b": 3}, ()),
        ({"a": 5}, {}, ("secret",)),
        ({"a": 6}, {}, ()),
        ({}, {}, ()),
    ]


def test_arrays_are_logged_as_their_values_also_where_they_are_personal() -> None:
    ledger = MemoryLedger()
    Recorder(ledger, endpoint="e", model="m", version="1", digest="d", personal=("age",)).record(
        at=0,
        ids=["p0", "p1"],
        asked=[Asked("key", 1, 2)],
        features={"age": np.array([41, 42], np.int8), "x": np.array([0.5, 1.5], np.float16)},
        outputs={"o": np.array([[1, 2], [3, 4]], np.float32)},
    )
    found = ledger.revealed(ledger.find("p1"))
    assert (found.features, found.outputs) == ({"x": 1.5, "age": 42}, {"o": [3.0, 4.0]})


def test_rows_that_a_fallback_answered_are_logged_apart_in_their_arm_and_sampled_with_their_request() -> None:
    rows = 5

    def logged(policy: Log | None = None) -> list[Prediction]:
        ledger = MemoryLedger()
        by = Recorder(ledger, endpoint="e", model="m", version="1", digest="d", keys=("a",), policy=policy)
        found = by.record(
            at=0,
            ids=[f"p{row}" for row in range(rows)],
            asked=[Asked("key", 1, 3, "one"), Asked("key", 2, 2, "two")],
            sent={"a": [*range(rows)]},
            features={"f": np.arange(rows)},
            statuses={"f": ["PRESENT"] * rows},
            outputs={"o": np.arange(rows) / 4, "n": ["x"] * rows},
            assigned=[Assigned("r", 0.25, 7), None],
            fallback=[1, 4],
        )
        assert not found
        return sorted(ledger.recent(), key=lambda each: each.id)

    made = logged()
    assert [each.outputs for each in made if not each.fallback] == [{"o": row / 4, "n": "x"} for row in (0, 2, 3)]
    assert made[4].outputs == {FALLBACK: '{"o":1.0,"n":"x"}'}
    assert [(each.keys, each.features, each.latency_us) for each in made] == [
        ({"a": row}, {"f": row}, 1 if row < 3 else 2) for row in range(rows)
    ]
    assert [(each.rollout, each.unit, each.row) for each in made] == [("r", 7, row) for row in range(3)] + [
        ("", 0, 0)
    ] * 2
    chosen = [{each.id for each in logged(Log(share=share))} for share in (0.1, 0.3, 0.5, 0.7, 0.9)]
    first, second = {"p0", "p1", "p2"}, {"p3", "p4"}
    assert all(each & some in (set(), some) for each in chosen for some in (first, second))
    assert len({*map(len, chosen)}) > 1


@pytest.mark.parametrize("wrong", [{"share": 0.0}, {"share": 1.5}, {"share": 0.5, "sync": True}, {"personal": "show"}])
def test_a_policy_that_cannot_be_is_refused(wrong: dict) -> None:
    with pytest.raises(Invalid):
        Log(**wrong)
