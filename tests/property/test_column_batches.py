"""The lake's rows made from columns are those made from the predictions one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.core.errors import Corrupt
from mainspring.ledger import batches, frames
from mainspring.ledger.batches import GROUPS, predictions_of
from mainspring.ledger.column_batches import ColumnBatch, gathered, joined
from mainspring.ledger.columns import to_batch
from mainspring.ledger.model import Asked, Assigned, Batch, Heading
from mainspring.ledger.sealing import Opener, Sealer
from mainspring.security.data_keys import OneKey

KEY = OneKey()
names = st.one_of(
    st.sampled_from(["Traffic.wind", "a", "order", 'with "quotes"', "back\\slash", "line\nbreak", "Å"]), st.text()
)
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.sampled_from([np.float32(0.1).item(), 1, 1.0, True, "", "line\nbreak\r\x0b\x85\u2028 \x00"]),
    st.text(),
    st.lists(st.floats(), max_size=3),
)


@st.composite
def headings(draw: Any) -> Heading:
    groups = {group: tuple(draw(st.lists(names, max_size=3, unique=True))) for group in GROUPS}
    personal = tuple(draw(st.lists(names, max_size=2, unique=True)))
    return Heading("late", "m", draw(st.sampled_from("12")), "d", **groups, personal=personal)


@st.composite
def frames_of(draw: Any) -> list[tuple[Heading, Batch]]:
    known = draw(st.lists(headings(), min_size=1, max_size=2))
    found, number = [], 0
    for _ in range(draw(st.integers(1, 4))):
        heading = draw(st.sampled_from(known))
        asked = [
            Asked(draw(st.sampled_from(["", "key"])), draw(st.integers(0, 10**9)), draw(st.integers(1, 3)), "r")
            for _ in range(draw(st.integers(1, 3)))
        ]
        rows = sum(each.rows for each in asked)
        arms = st.one_of(st.none(), st.just(Assigned("", 1.0, 0)), st.just(Assigned("r1", 0.25, 2**62, 3)))
        columns = [
            draw(st.lists(values, min_size=rows, max_size=rows)) for group in GROUPS for _ in getattr(heading, group)
        ]
        batch = Batch(
            heading,
            draw(st.integers(0, 2**52)),
            draw(st.sampled_from([1.0, 0.25])),
            [f"p{number + row}" for row in range(rows)],
            asked,
            columns,
            [b"sealed"] * rows if draw(st.booleans()) else (),
            [draw(arms) for _ in asked] if draw(st.booleans()) else (),
        )
        number += rows
        found.append((heading, batch))
    return found


def framed(found: Sequence[tuple[Heading, Batch]]) -> bytes:
    numbers: dict[Heading, int] = {}
    encoded = [batches.encode(batch, numbers.setdefault(heading, len(numbers))) for heading, batch in found]
    (payload,) = frames.scan(frames.framed({at: heading for heading, at in numbers.items()}, encoded), 0).payloads
    return payload


@given(frames_of())
def test_rows_are_those_of_the_predictions(found: list[tuple[Heading, Batch]]) -> None:
    payload = framed(found)
    whole, failures = frames.decode_all(payload)
    made, no_failures, explanations = frames.decode_batches(payload)
    halves = [*gathered(made[: len(made) // 2]), *gathered(made[len(made) // 2 :])]
    rows = pa.Table.from_batches([batch.record_batch(7) for batch in joined(halves)])
    order = {prediction.id: place for place, prediction in enumerate(whole)}
    rows = rows.take(pa.array(np.argsort([order[id_] for id_ in rows["id"].to_pylist()]), pa.int64()))
    expected = pa.Table.from_batches([to_batch(whole, 7)])
    assert (failures, no_failures, explanations) == ([], [], [])
    for name in expected.column_names:  # NaN is equal to itself here
        assert [*map(repr, rows[name].to_pylist())] == [*map(repr, expected[name].to_pylist())], name
    assert rows.schema.equals(expected.schema)


@pytest.mark.parametrize(
    "broken",
    [
        {"columns": [[1.0], [2.0, 3.0]]},
        {"columns": [[1.0, 2.0]]},
        {"columns": [[1.0, 2.0], "ab"]},
        {"asked": [Asked("", 1, 1)]},
        {"sealed": [b"x"]},
        {"assigned": [None, None]},
    ],
)
def test_a_frame_whose_parts_do_not_fit_is_corrupt(broken: dict[str, Any]) -> None:
    heading = Heading("e", "m", "1", "d", features=("a", "b"))
    whole: dict[str, Any] = {"columns": [[1.0, 2.0], [3.0, 4.0]], "asked": [Asked("", 1, 2)]}
    made = Batch(heading, 0, 1.0, ["p", "q"], **(whole | broken))
    with pytest.raises(Corrupt):
        frames.decode_batches(framed([(heading, made)]))
    frames.decode_batches(framed([(heading, Batch(heading, 0, 1.0, ["p", "q"], **whole))]))


def one(batch: Batch) -> ColumnBatch:
    (found,) = gathered([(batch.heading, batch)])
    return found


def test_personal_features_are_decrypted_for_an_observer_and_absent_where_they_were_left_out() -> None:
    heading = Heading("e", "m", "1", "d", features=("a",), outputs=("p",), personal=("b", "user"))
    sealer = Sealer(KEY)
    hidden = [{"keys": {"user": "u"}, "request": {}, "features": {"b": value}} for value in (1.5, None)]
    sealed = [sealer.seal(id_, values) for id_, values in zip("pq", hidden, strict=True)]
    batch = Batch(heading, 0, 1.0, ["p", "q"], [Asked("", 1, 2)], [[1.0, 2.0], [0.5, [0.25, 0.75]]], sealed)
    assert one(batch).features(Opener(KEY)) == {"a": [1.0, 2.0], "b": [1.5, None]}
    assert one(batch).score == [0.5, 0.25]
    left_out = Batch(heading, 0, 1.0, ["p", "q"], batch.asked, batch.columns)
    assert one(left_out).features(Opener(KEY)) == {"a": [1.0, 2.0]}
    assert len(gathered([(heading, batch), (heading, left_out)])) == 2
    with pytest.raises(Corrupt):
        one(batch).features(Opener(OneKey()))
    assert predictions_of(heading, batch)[0].features == {"a": 1.0}  # the log's rows stay sealed
