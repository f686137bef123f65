"""Consent: the observations that count, against a plain loop over the same decisions."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import mainspring as ms
from kit.depth import examples
from mainspring.core.errors import Invalid
from mainspring.core.time import to_datetime
from mainspring.data.model import TableScan
from mainspring.features import definitions
from mainspring.features.offline.observed import observe
from mainspring.training.inputs import read_by
from mainspring.training.label import Label
from mainspring.training.sets.assemble import labelled

person = ms.Entity("person", keys={"person": ms.String})
visits = ms.Source("visits", schema={"person": ms.String, "visit": ms.Int64, "bought": ms.Boolean}, event_time="at")
bought = ms.Source("bought", schema={"person": ms.String, "won": ms.Boolean}, event_time="at")
decisions = ms.Source(
    "decisions", schema={"person": ms.String, "purpose": ms.String, "given": ms.Boolean}, event_time="at",
    recorded_time="recorded_at",
)  # fmt: skip
CONSENT = ms.Consent(decisions, entity=person, purpose="ads")
observed = ms.Observations(visits, keys=[person], at=ms.col("at"), consent=CONSENT)


@ms.request_features
class Visit:
    visit = ms.col("visit")


TIME = pa.timestamp("us", tz="UTC")
people = st.sampled_from(["ana", "ben", None])
Decision = tuple[str | None, str, bool | None, int, int]


def table(source: ms.Source, rows: list[dict[str, Any]]) -> TableScan:
    kinds: dict[Any, pa.DataType] = {ms.String: pa.string(), ms.Int64: pa.int64(), ms.Boolean: pa.bool_()}
    columns = [(name, kinds.get(dtype, TIME)) for name, dtype in source.columns.items()]
    schema = pa.schema([*columns, ("_visible_at", TIME), ("_seq", pa.int64())])
    return TableScan(1, rows=pa.Table.from_pylist([{**row, "_seq": seq} for seq, row in enumerate(rows)], schema))


def tables(visited: list[tuple[str | None, int]], decided: list[Decision]) -> dict[str, TableScan]:
    return {
        "visits": table(visits, [{"person": who, "visit": number, "at": to_datetime(at), "_visible_at": to_datetime(at)}
                                 for number, (who, at) in enumerate(visited)]),
        "bought": table(bought, [{"person": who, "won": True, "at": to_datetime(0), "_visible_at": to_datetime(0)}
                                 for who in ("ana", "ben")]),
        "decisions": table(decisions, [
            {"person": who, "purpose": purpose, "given": given, "at": to_datetime(at),
             "recorded_at": to_datetime(recorded), "_visible_at": to_datetime(max(at, recorded))}
            for who, purpose, given, at, recorded in decided]),
    }  # fmt: skip


def consented(who: str | None, at: int | None, decided: list[Decision]) -> bool:
    """Return whether the newest decision that was known at a time is a consent."""
    theirs = [(number, *each[2:]) for number, each in enumerate(decided) if each[:2] == (who, "ads") and who]
    known = [(event, number, given) for number, given, event, recorded in theirs
             if at is None or max(event, recorded) <= at]  # fmt: skip
    return bool(known) and max(known)[2] is True


@settings(max_examples=examples(gate=10, deep=200), deadline=None)
@given(
    st.lists(st.tuples(people, st.integers(0, 9)), max_size=8),
    st.lists(
        st.tuples(people, st.sampled_from(["ads", "fraud"]), st.sampled_from([True, False, None]), st.integers(0, 9),
                  st.integers(0, 9)),
        max_size=12,
    ),
    st.one_of(st.none(), st.integers(0, 10)),
)  # fmt: skip
@example([("ana", 1), ("ana", 3), ("ben", 3)], [("ana", "ads", True, 2, 2), ("ana", "ads", False, 4, 4)], None)
@example([("ana", 1), ("ana", 3), ("ben", 3)], [("ana", "ads", True, 2, 2), ("ana", "ads", False, 4, 4)], 4)
@example([("ana", 3)], [("ana", "ads", True, 2, 2), ("ana", "ads", False, 1, 5)], None)
def test_who_has_not_consented_is_left_out(
    visited: list[tuple[str | None, int]], decided: list[Decision], until: int | None
) -> None:
    within = [(number, who, at) for number, (who, at) in enumerate(visited) if until is None or at < until]
    counted = {number for number, who, at in within if consented(who, at, decided) and consented(who, until, decided)}
    scan = tables(visited, decided).__getitem__
    assert {*observe(observed, scan, until=until)["visit"].to_pylist()} == counted
    found, left_out = labelled(observed, [Label(bought.won)], scan, since=None, until=until)
    assert {*found["visit"].to_pylist()} == counted
    assert left_out.counts.get("no_consent", 0) == len(within) - len(counted)
    assert ("without consent" in str(left_out)) == (len(counted) < len(within))


def test_a_bundle_has_the_consent() -> None:
    _, again = definitions.load(definitions.dump([], observed))
    found = again.consent
    assert found is not None
    assert (found.source.name, found.entity.name, found.purpose) == ("decisions", "person", "ads")
    assert definitions.dump([], again) == definitions.dump([], observed)


def test_a_model_reads_the_source_of_the_consent() -> None:
    model = ms.model("buyer", observations=observed, features=[Visit], label=bought.won, task="binary")(print)
    assert read_by(model).keys() == {"visits", "decisions", "bought"}


def test_what_can_hold_no_consents_is_refused() -> None:
    with pytest.raises(Invalid, match="'given'"):
        ms.Consent(visits, entity=person, purpose="ads")
    versioned = ms.Source(
        "versioned", schema={"person": ms.String, "purpose": ms.String, "given": ms.Boolean}, event_time="at",
        id="person",
    )  # fmt: skip
    with pytest.raises(Invalid, match="id"):
        ms.Consent(versioned, entity=person, purpose="ads")
    other = ms.Source("other", schema={"visit": ms.Int64}, event_time="at")
    with pytest.raises(Invalid, match="key columns"):
        ms.Observations(other, keys=[], at=ms.col("at"), consent=CONSENT)
