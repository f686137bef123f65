"""Many states read at once, column by column, say what each says alone; a state's bytes are the state."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mainspring as ms
from mainspring.core.errors import Corrupt
from mainspring.core.time import DAY, HOUR
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.features.keys import encode_key
from mainspring.features.layout import Layout
from mainspring.features.model import EntityState, Mark
from mainspring.features.online import OnlineReader
from mainspring.features.online.entity import EntityReader
from mainspring.features.online.reader import Names
from mainspring.features.state.blobs import SETTLING, Candidates, Recent, State, decode, encode

NOW = 1_700_000_000_000_000
FACTS = ms.Source(
    "facts", schema={"k": ms.String, "x": ms.Float64, "n": ms.Int64, "s": ms.String, "b": ms.Boolean}, event_time="at"
)
THING = ms.Entity("thing", keys={"k": ms.String})


@ms.feature_view(entity=THING, source=FACTS)
class Facts:
    x = ms.last("x")
    n = ms.last("n", ttl="1d")
    s = ms.last("s", ttl="1h")
    b = ms.last("b")


READER = EntityReader(Layout(Facts))
EMPTY = Recent([], [], [])
INT64 = st.integers(-(2**63), 2**63 - 1)
ROW = st.tuples(st.floats() | st.none(), INT64 | st.none(), st.text() | st.none(), st.booleans() | st.none())
PRESENT_ROW = st.tuples(st.floats(), INT64, st.text(), st.booleans())


@st.composite
def states(draw: st.DrawFn, rows: Any = ROW, *, most: int = 3, old: int = 2 * DAY) -> State:
    """One to `most` rows that count, the first visible by now or, where all are to come, none."""
    visible = sorted(NOW + each for each in draw(st.lists(st.integers(-old, 0), min_size=1, max_size=1)))
    visible += sorted(NOW + each for each in draw(st.lists(st.integers(1, HOUR), max_size=most - 1)))
    if draw(st.booleans()) and len(visible) > 1:
        del visible[0]  # nothing of it is visible yet
    values = [draw(rows) for _ in visible]
    event = [at - draw(st.sampled_from([0, 1, HOUR, DAY])) for at in visible]
    return State(
        visible[0], Candidates(visible, event, [list(column) for column in zip(*values, strict=True)]), [], EMPTY
    )


def alike(left: Any, right: Any) -> bool:
    if isinstance(left, float) and isinstance(right, float) and math.isnan(left):
        return math.isnan(right)
    return type(left) is type(right) and left == right


def check(payloads: list[bytes | None], now: int) -> None:
    by_name, statuses_by_name = READER.columns(payloads, now)
    assert (*by_name,) == (*statuses_by_name,) == Facts.columns
    columns, statuses = [*by_name.values()], [*statuses_by_name.values()]
    for row, payload in enumerate(payloads):
        values, of_row = READER.read(None if payload is None else decode(payload, "Facts"), now)
        assert [column[row] for column in statuses] == of_row
        assert all(alike(column[row], value) for column, value in zip(columns, values, strict=True))
    assert {len(column) for column in (*columns, *statuses)} == {len(payloads)}


@given(st.lists(st.none() | states(), max_size=12), st.integers(0, HOUR))
def test_many_states_say_what_each_says(found: list[State | None], later: int) -> None:
    check([None if state is None else encode(state) for state in found], NOW + later)


@given(
    st.lists(states(PRESENT_ROW, most=1, old=1), min_size=1, max_size=12), st.sampled_from([0, 1, HOUR, DAY, 2 * DAY])
)
def test_many_flat_states_say_what_each_says(found: list[State], later: int) -> None:
    payloads: list[bytes | None] = [encode(state) for state in found]
    assert not any(payload.startswith(b"\x94") for payload in payloads if payload is not None)
    check(payloads, NOW + later)


@given(states())
def test_bytes_are_the_state(state: State) -> None:
    again = decode(encode(state), "Facts")
    assert encode(again) == encode(state)
    assert (again.since, again.lasts.visible, again.lasts.event) == (
        state.since,
        state.lasts.visible,
        state.lasts.event,
    )
    for mine, theirs in zip(again.lasts.values, state.lasts.values, strict=True):
        assert all(alike(left, right) for left, right in zip(mine, theirs, strict=True))


@given(st.binary(max_size=60), st.integers(0, 3), st.lists(states(PRESENT_ROW, most=1), min_size=3, max_size=3))
def test_damage_is_told_and_not_guessed(noise: bytes, place: int, others: list[State]) -> None:
    payloads: list[bytes | None] = [encode(state) for state in others]
    for damaged in (noise, payloads[0][:-1], payloads[0] + b"\0", b"\x94" + payloads[0][1:], b"\x95" + payloads[0][1:]):
        with pytest.raises(Corrupt, match="Facts"):
            READER.columns([*payloads[:place], damaged, *payloads[place:]], NOW)
        with pytest.raises(Corrupt, match="Facts"):
            READER.columns([damaged], NOW)


KEY_VALUES = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "1", "True", "a"])


@given(st.lists(st.lists(st.tuples(KEY_VALUES, KEY_VALUES), max_size=8), min_size=1, max_size=4))
def test_names_are_the_keys_bytes_whatever_was_asked_before(requests: list[list[tuple[Any, Any]]]) -> None:
    pair, single = Names("v", {"n": ms.Int64, "b": ms.Boolean}), Names("w", {"n": ms.Int64})
    for rows in requests:
        columns = {"n": [row[0] for row in rows], "b": [row[1] for row in rows]}
        for names, slot, keys in ((pair, "v", rows), (single, "w", [row[:1] for row in rows])):
            found, places = names.of(columns)
            assert len(set(found)) == len(found)
            at = range(len(rows)) if places is None else places
            wanted = [None if None in key else (slot, encode_key(key)) for key in keys]
            assert [found[place] if place < len(found) else None for place in at] == wanted


def test_rows_that_name_one_entity_read_it_once_and_alike() -> None:
    store = MemoryOnlineStore()
    reader = OnlineReader([Facts], store)
    state = State(NOW, Candidates([NOW], [NOW], [[1.5], [7], ["s"], [True]]), [], EMPTY)
    store.write(Layout(Facts).slot, [(encode_key(["a"]), EntityState(NOW, encode(state)))])
    read = reader.read({"k": ["a", "b", "a", None]}, NOW)
    assert read.features["Facts.n"] == [7, None, 7, None]
    assert read.statuses["Facts.n"] == ["PRESENT", "MISSING", "PRESENT", "MISSING"]
    assert reader.read({"k": ["a", "a"]}, NOW).features["Facts.s"] == ["s", "s"]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-DAY, HOUR)), max_size=12), st.integers(-DAY, 0), st.data())
def test_rows_of_different_instants_say_what_each_says_alone(
    rows: list[tuple[int, int]], position: int, data: st.DataObject
) -> None:
    store = MemoryOnlineStore()
    layout = Layout(Facts)
    held = [(encode_key([f"k{n}"]), EntityState(NOW, encode(data.draw(states())))) for n in range(3)]
    store.write(layout.slot, held)
    store.advance(layout.slot, Mark(NOW + position))
    reader = OnlineReader([Facts], store)
    keys = [f"k{n}" for n, _ in rows]  # k3 was never seen
    read, earlier = reader.read_each({"k": keys}, [NOW + at for _, at in rows])
    floor = NOW + position - SETTLING
    assert earlier == sum(NOW + at < floor for _, at in rows)
    for row, (_, at) in enumerate(rows):
        alone = reader.read({"k": [keys[row]]}, max(NOW + at, floor))
        for name in Facts.columns:
            assert alike(read.features[name][row], alone.features[name][0])
            assert read.statuses[name][row] == alone.statuses[name][0]
