"""Random histories of facts about a few entities, as they land: late, twice, out of order, on the edges of hops."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

import mainspring as ms
from kit.oracle import DAY, HOUR, MINUTE, Feature, Row, record_setting
from mainspring.core.expr import Column, Node
from mainspring.data.model import Source, TableScan
from mainspring.features.declaring import feature_view, on_demand_features
from mainspring.features.layout import feature_dtype
from mainspring.features.model import Aggregation, Entity, FeatureView, RequestFeatures

KEYS = [("1", 11), ("11", 1), ("ü", -(2**63)), ("", 0)]
PAIR = Entity("pair", keys={"k": ms.String, "n": ms.Int64})
VERSIONS = {"f": ms.Int64, "gone": ms.Boolean}
COLUMNS = {"x": ms.Float64, "y": ms.Float32, "z": ms.Int64, "s": ms.String, "b": ms.Boolean, "t": ms.Timestamp}
# A leap day, the fold of New York's autumn of 2013, and the epoch, before which instants are negative.
BASES = [1_330_473_600_000_000, 1_383_458_400_000_000, 0]

OF: dict[str, tuple[Node | None, Any]] = {
    "x": (ms.col("x"), lambda row: row["x"]),
    "y": (ms.col("y"), lambda row: row["y"]),
    "z": (ms.col("z"), lambda row: row["z"]),
    "b": (ms.col("b"), lambda row: row["b"]),
    "x_over_1": (ms.col("x") > 1, lambda row: None if row["x"] is None else row["x"] > 1),
    "nothing": (None, None),
    "s": (ms.col("s"), lambda row: row["s"]),
    "t": (ms.col("t"), lambda row: row["t"]),
}
WHERE: dict[str, tuple[Node | None, Any]] = {
    "all": (None, None),
    "b": (ms.col("b"), lambda row: row["b"]),
    "z_positive": (ms.col("z") > 0, lambda row: None if row["z"] is None else row["z"] > 0),
}
KINDS = {
    "count": ["nothing", "x", "s"],
    "sum": ["x", "y", "z", "x_over_1"],
    "mean": ["x", "y", "b", "x_over_1"],
    "variance": ["x", "y", "z"],
    "std": ["x", "z"],
    "min": ["x", "y", "z", "s", "t"],
    "max": ["x", "y", "z", "s", "t"],
    "first": ["x", "y", "z", "s", "b", "t"],
    "newest": ["x", "y", "z", "s", "b", "t"],
    "distinct": ["z", "s", "b", "t", "x_over_1"],
    "quantile": ["x", "y", "z", "b"],
    "top": ["z", "s", "b", "t"],
}
SHARES = [0.0, 0.1, 0.333333, 0.5, 0.9, 0.999999, 1.0]
NUMERIC = ("count", "sum", "mean", "variance", "std", "distinct", "quantile")
WINDOWS = [5 * MINUTE, 7 * MINUTE + 1, HOUR, 12 * HOUR, 12 * HOUR + 1, 25 * HOUR, 13 * DAY, 30 * DAY]
TTLS = [None, 1, 5 * MINUTE, HOUR, DAY]


Known = Mapping[str, Any]  # stored features by their full names, and fields of the request


@dataclass(frozen=True)
class Computed:
    """A computed feature: what it is computed from, by full name, and a function of that."""

    inputs: tuple[str, ...]
    of: Callable[[Known], Any]


@dataclass(frozen=True)
class History:
    """Rows in the order in which they land, a view of them, and the same features for the oracle.

    `computed` are, by full name, the features derived in the view and those of `ask`, which are computed on demand.
    """

    source: Source
    view: FeatureView
    features: dict[str, Feature]
    ask: RequestFeatures
    computed: dict[str, Computed]
    rows: list[Row]
    base: int

    @property
    def lag(self) -> int:
        return self.source.lag_us

    def edges(self) -> list[int]:
        """Instants at which something changes."""
        found = set()
        for row in self.rows:
            found |= {row.event, row.visible(self.lag)}
            found |= {row.event + feature.window for feature in self.features.values()}
            found |= {row.event + feature.ttl for feature in self.features.values() if feature.ttl}
        return sorted(found)


def near(instants: st.SearchStrategy[int]) -> st.SearchStrategy[int]:
    return st.builds(lambda at, by: at + by, instants, st.sampled_from([0, -1, 1]))


def _offsets() -> st.SearchStrategy[int]:
    steps = st.one_of(
        st.integers(0, 30).map(lambda n: n * 5 * MINUTE),
        st.integers(0, 30).map(lambda n: n * HOUR),
        st.integers(0, 40).map(lambda n: n * DAY),
    )
    return st.one_of(near(steps), st.integers(0, 3 * HOUR), st.integers(0, 40 * DAY))


_DELAYS = st.one_of(
    st.sampled_from([0, 0, 1, -HOUR, 5 * MINUTE, HOUR, 2 * DAY]), st.integers(0, 2 * HOUR), st.integers(0, 20 * DAY)
)
_SMALL = st.integers(-8, 8).map(lambda n: n / 2)
_LARGE = st.integers(-4096, 4096).map(lambda n: 1e9 + n / 1024)
_HOSTILE = st.sampled_from([float("nan"), float("inf"), float("-inf"), -0.0, 5e-324])
_INSTANTS = st.integers(-(10**15), 10**15)


def _values(large: bool, hostile: bool) -> st.SearchStrategy[dict[str, Any]]:
    x = _LARGE if large else st.one_of(_SMALL, _HOSTILE) if hostile else _SMALL
    y = st.one_of(_SMALL, _HOSTILE) if hostile else _SMALL
    return st.fixed_dictionaries(
        {
            "x": st.one_of(x, x, st.none()),
            "y": st.one_of(y, y, st.none()).map(lambda v: 0.0 if v == 5e-324 else v),
            "z": st.one_of(st.integers(-5, 5), st.none()),
            "s": st.one_of(st.sampled_from(["", "a", "ß", "z", "\U0001f600"]), st.none()),
            "b": st.sampled_from([True, False, None]),
            "t": st.one_of(_INSTANTS, st.none()),
        }
    )


@st.composite
def histories(draw: st.DrawFn, versioned: st.SearchStrategy[bool] = st.booleans()) -> History:  # noqa: B008
    """Histories of rows, or of versions of facts: corrected, moved, retracted, out of order."""
    base = draw(st.sampled_from(BASES))
    lag = draw(st.sampled_from([0, 0, 1, 15 * MINUTE]))
    if draw(versioned):
        schema = {"k": ms.String, "n": ms.Int64, **COLUMNS, **VERSIONS}
        source = Source("facts", schema=schema, event_time="at", recorded_time="known_at", lag=lag, id="f",
                        retracted="gone")  # fmt: skip
    else:
        source = Source("facts", schema={"k": ms.String, "n": ms.Int64, **COLUMNS}, event_time="at",
                        recorded_time="known_at", lag=lag)  # fmt: skip
    view, features, computed = draw(_views(source))
    ask, on_demand = draw(_asks(view))
    values = _values(draw(st.booleans()), draw(st.booleans()))
    rows: list[Row] = []
    for seq in range(draw(st.integers(1, 40))):
        if source.id:
            rows.append(draw(_version(rows, base, seq, values)))
            continue
        if rows and draw(st.integers(0, 5)) == 0:  # a duplicate or a correction of an earlier row
            of = draw(st.sampled_from(rows))
            recorded = of.recorded + draw(st.sampled_from([0, 0, 1, HOUR]))
            rows.append(Row(of.key, of.event, recorded, seq, draw(values)))
            continue
        key = draw(st.sampled_from([*KEYS[:2], *KEYS, (None, 1), ("1", None)]))
        event = base + draw(_offsets())
        rows.append(Row(key, event, event + draw(_DELAYS), seq, draw(values)))
    return History(source, view, features, ask, {**computed, **on_demand}, rows, base)


_SHIFTS = st.one_of(st.sampled_from([0, 0, 0, 1, -1, 5 * MINUTE, -HOUR, DAY]), st.integers(-2 * DAY, 2 * DAY))


@st.composite
def _version(draw: st.DrawFn, rows: Sequence[Row], base: int, seq: int, values: Any) -> Row:
    """A new fact, or a version of an earlier row's, perhaps of another entity or at another time."""
    if not rows or draw(st.integers(0, 2)) == 0:
        key = draw(st.sampled_from([*KEYS[:2], *KEYS, (None, 1)]))
        event = base + draw(_offsets())
        return Row(key, event, event + draw(_DELAYS), seq, draw(values), seq, draw(st.integers(0, 9)) == 0)
    of = draw(st.sampled_from(rows))
    key = of.key if draw(st.integers(0, 3)) else draw(st.sampled_from([*KEYS, ("1", None)]))
    retracted = draw(st.integers(0, 3)) == 0
    return Row(key, of.event + draw(_SHIFTS), of.recorded + draw(_SHIFTS), seq, draw(values), of.id, retracted)


@st.composite
def _views(draw: st.DrawFn, source: Source) -> tuple[FeatureView, dict[str, Feature], dict[str, Computed]]:
    windows = draw(st.lists(st.sampled_from(WINDOWS), min_size=1, max_size=2, unique=True))
    aggregations: dict[str, Aggregation] = {}
    features: dict[str, Feature] = {}
    for number in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(sorted(KINDS)))
        of, where = draw(st.sampled_from(KINDS[kind])), draw(st.sampled_from(sorted(WHERE)))
        window = draw(st.sampled_from(windows))
        plain = kind in ("count", "distinct", "top") or of in "stb"
        default = None if plain else draw(st.sampled_from([None, None, -1.0]))
        nth = draw(st.integers(1, 3)) if kind in ("newest", "top") else None
        share = draw(st.sampled_from(SHARES)) if kind == "quantile" else None
        name = f"{kind}_{number}"
        aggregations[name] = Aggregation(
            kind=kind, of=OF[of][0], where=WHERE[where][0], window=window, default=default, nth=nth, share=share
        )
        features[name] = Feature(kind, OF[of][1], WHERE[where][1], window, None, default, nth or 1, share or 0.0)
    for number in range(draw(st.integers(0, 3))):
        of, ttl = draw(st.sampled_from(["x", "y", "z", "s", "b", "t"])), draw(st.sampled_from(TTLS))
        aggregations[f"last_{number}"] = ms.last(of, ttl=ttl)
        features[f"last_{number}"] = Feature("last", OF[of][1], ttl=ttl)
    members: dict[str, Any] = dict(aggregations)
    computed: dict[str, Computed] = {}
    numbers = [name for name, each in aggregations.items() if each.kind in NUMERIC or _is_number(each)]
    for number in range(draw(st.integers(0, 2)) if numbers else 0):
        way, a, b = draw(st.sampled_from(sorted(WAYS))), draw(st.sampled_from(numbers)), draw(st.sampled_from(numbers))
        expression, of = WAYS[way]
        members[f"{way}_{number}"] = expression(aggregations[a], ms.col(b))
        computed[f"Facts.{way}_{number}"] = _over(of, f"Facts.{a}", f"Facts.{b}")
    order = draw(st.permutations(sorted(members)))
    body = type("Facts", (), {name: members[name] for name in order})
    return feature_view(entity=PAIR, source=source)(body), features, computed


def _is_number(aggregation: Aggregation) -> bool:
    return isinstance(aggregation.of, Column) and aggregation.of.name in "xyz" and aggregation.kind != "top"


def _over(of: Callable[[Any, Any], Any], a: str, b: str) -> Computed:
    return Computed((a, b), lambda known: of(known[a], known[b]))


@st.composite
def _asks(draw: st.DrawFn, view: FeatureView) -> tuple[RequestFeatures, dict[str, Computed]]:
    """Features on demand, over fields of the request and the view's features, stored and derived."""
    members: dict[str, Any] = {"both": ms.col("q") + ms.col("w")}
    computed = {"Ask.both": Computed(("q", "w"), lambda known: _or_null(operator.add, known["q"], known["w"]))}
    numbers = [name for name in view.names if feature_dtype(view, name).numeric]
    for number in range(draw(st.integers(0, 2)) if numbers else 0):
        way, a = draw(st.sampled_from(sorted(WAYS))), draw(st.sampled_from(numbers))
        field = draw(st.sampled_from(sorted(FIELDS)))
        expression, of = WAYS[way]
        members[f"{way}_{number}"] = expression(view[a], ms.col(field))
        computed[f"Ask.{way}_{number}"] = _over(of, f"Facts.{a}", field)
    return on_demand_features(type("Ask", (), members)), computed


FIELDS = {"q": ms.Float64, "w": ms.Int64}


def _or_null(function: Callable[[Any, Any], Any], a: Any, b: Any) -> Any:
    return None if a is None or b is None else function(a, b)


def _greater(a: Any, b: Any) -> Any:
    return a if a is not None and b is not None and a > b else b


WAYS: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]] = {
    "ratio": (operator.truediv, lambda a, b: _or_null(lambda a, b: None if b == 0 else _divided(a, b), a, b)),
    "difference": (operator.sub, lambda a, b: _or_null(operator.sub, a, b)),
    "filled": (lambda a, b: a.coalesce(b), lambda a, b: b if a is None else a),
    "greater": (lambda a, b: ms.when(a > b, a, b), _greater),
    "unknown": (lambda a, b: a.is_null() | b.is_null(), lambda a, b: a is None or b is None),
}


def _divided(a: Any, b: Any) -> float:
    return float(a) / float(b)


ARROW = {
    ms.String: pa.string(), ms.Int64: pa.int64(), ms.Float64: pa.float64(), ms.Float32: pa.float32(),
    ms.Boolean: pa.bool_(), ms.Timestamp: pa.timestamp("us", tz="UTC"),
}  # fmt: skip


def landed(history: History, rows: Sequence[Row]) -> pa.Table:
    """The rows as a source brings them."""
    columns: dict[str, list[Any]] = {
        "at": [row.event for row in rows],
        "known_at": [row.recorded for row in rows],
        "k": [row.key[0] for row in rows],
        "n": [row.key[1] for row in rows],
        **{name: [row.values[name] for row in rows] for name in COLUMNS},
        "f": [row.id for row in rows],
        "gone": [row.retracted or None for row in rows],
    }
    return pa.table({name: pa.array(columns[name], ARROW[dtype]) for name, dtype in history.source.columns.items()})


def lake_table(history: History, rows: Sequence[Row], version: int) -> TableScan:
    """The rows as the lake holds them, with the columns of ingestion as the oracle computes them."""
    counting: set[int] = set()
    superseded = {row.seq: _superseded(rows, row, history.lag) for row in rows}
    standing = [row for row in rows if superseded[row.seq] is None]
    for key in {row.key for row in standing}:
        records = record_setting([row for row in standing if row.key == key], history.lag)
        # Of rows that become visible at once, only the last counts: the others are never the newest.
        counting |= {row.seq for row in {row.visible(history.lag): row for row in records}.values()}
    table = landed(history, rows)
    visible = pa.array([row.visible(history.lag) for row in rows], pa.timestamp("us", tz="UTC"))
    table = table.append_column("_visible_at", visible)
    table = table.append_column("_seq", pa.array([row.seq for row in rows], pa.int64()))
    table = table.append_column("_record_pair", pa.array([row.seq in counting for row in rows], pa.bool_()))
    if history.source.id:
        at, by = zip(*(superseded[row.seq] or (None, None) for row in rows)) if rows else ((), ())  # noqa: B905
        table = table.append_column("_superseded_at", pa.array(at, pa.timestamp("us", tz="UTC")))
        table = table.append_column("_superseded_by", pa.array(by, pa.int64()))
    return TableScan(version, rows=table, schema=table.schema)


def _superseded(rows: Sequence[Row], row: Row, lag: int) -> tuple[int, int] | None:
    """When a higher version of the row's fact became visible, and its number; a retraction never counts."""
    higher = [(row.visible(lag), row.seq)] if row.retracted else []
    if row.id is not None:
        rank = (row.recorded, row.seq)
        higher += [(o.visible(lag), o.seq) for o in rows if o.id == row.id and (o.recorded, o.seq) > rank]
    return min(higher, default=None)
