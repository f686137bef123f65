"""Entities, aggregations, feature views, observations: what a user declares about features.

Definitions are data: they are stored by `apply`, travel in a bundle, and are read by two engines (features.offline,
features.online) that give the same number at every microsecond.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from enum import StrEnum
from typing import Any

import msgspec

from mainspring.core.declare import declare
from mainspring.core.errors import Invalid
from mainspring.core.expr import Column, Node, as_expr
from mainspring.core.ids import check_id
from mainspring.core.schema import Schema, check_schema
from mainspring.core.time import DAY, HOUR, MINUTE, parse_duration
from mainspring.data.model import Source


@dataclass(frozen=True, eq=False)
class Entity:
    """Something features are about: a customer, an airport. `keys` are the columns that identify it, with types."""

    name: str
    _: KW_ONLY
    keys: Schema
    description: str = ""

    def __post_init__(self) -> None:
        check_id(self.name, "entity")
        check_schema(self.keys, f"Entity {self.name!r}")
        if not self.keys:
            raise Invalid(f"Entity {self.name!r} has no keys.", fix="give it at least one: keys={'id': ms.String}.")
        declare(self)


class Aggregation(msgspec.Struct, frozen=True, eq=False, kw_only=True, omit_defaults=True):
    """One stored feature of a view.

    `kind` is `last` (a last value with an optional TTL) or a window's: count, sum, mean, variance, std, min, max.
    `of` is the aggregated expression over the source's row (`None` for a bare count), `where` an optional filter.
    """

    kind: str
    of: Node | None = None
    window: int | None = None  # microseconds
    ttl: int | None = None  # microseconds, for `last`
    where: Node | None = None
    default: float | None = None  # instead of null where a window is empty
    description: str = ""


def hop(window: int) -> int:
    """Return the width of a window's tiles, µs: 5 min for windows up to 12 h, 1 h up to 12 d, 1 d above."""
    if window <= 12 * HOUR:
        return 5 * MINUTE
    return HOUR if window <= 12 * DAY else DAY


def _windowed(
    kind: str, of: Any, window: str | int, where: Any, default: float | None, description: str
) -> Aggregation:
    return Aggregation(
        kind=kind,
        of=None if of is None else _row_expr(of),
        window=parse_duration(window),
        where=None if where is None else as_expr(where),
        default=default,
        description=description,
    )


def _row_expr(of: Any) -> Node:
    return Column(of) if isinstance(of, str) else as_expr(of)


def last(of: Any, *, ttl: str | int | None = None, description: str = "") -> Aggregation:
    """The newest known value; null when it is older than `ttl` (an age of exactly `ttl` is valid)."""
    return Aggregation(
        kind="last", of=_row_expr(of), ttl=None if ttl is None else parse_duration(ttl), description=description
    )


def count(of: Any = None, *, window: str | int, where: Any = None, description: str = "") -> Aggregation:
    """How many events the window holds (with `of`: how many where it is not null); 0 for none."""
    return _windowed("count", of, window, where, None, description)


def _aggregation(kind: str, summary: str) -> Callable[..., Aggregation]:
    def build(
        of: Any, *, window: str | int, where: Any = None, default: float | None = None, description: str = ""
    ) -> Aggregation:
        return _windowed(kind, of, window, where, default, description)

    build.__name__ = build.__qualname__ = kind
    build.__doc__ = f"{summary} over the window, nulls left out; null, or `default`, where there is none."
    return build


sum_ = _aggregation("sum", "The sum")
mean = _aggregation("mean", "The arithmetic mean; of a condition, the share of events for which it holds,")
variance = _aggregation("variance", "The population variance")
std = _aggregation("std", "The population standard deviation")
min_ = _aggregation("min", "The smallest value")
max_ = _aggregation("max", "The largest value")


@dataclass(frozen=True, eq=False)
class FeatureView:
    """Stored features of one entity from one source. Built by `feature_view`."""

    name: str
    entity: Entity
    source: Source
    features: Mapping[str, Aggregation]
    description: str = ""
    owner: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """The features' full names: `OriginTraffic.departures_1h`."""
        return tuple(f"{self.name}.{feature}" for feature in self.features)


@dataclass(frozen=True, eq=False)
class RequestFeatures:
    """Features computed from the request alone, by the same expressions in training and in serving."""

    name: str
    features: Mapping[str, Node]
    description: str = ""
    owner: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(f"{self.name}.{feature}" for feature in self.features)


FeatureGroup = FeatureView | RequestFeatures


def feature_view(*, entity: Entity, source: Source, owner: str = "") -> Callable[[type], FeatureView]:
    """Turn a class whose attributes are aggregations into a `FeatureView` named after it.

    Raises:
        Invalid: The class has no aggregation, or one of its public attributes is something else.
    """

    def build(body: type) -> FeatureView:
        view = FeatureView(
            check_id(body.__name__, "feature view"),
            entity,
            source,
            _attributes(body, Aggregation),
            (body.__doc__ or "").strip(),
            owner,
        )
        declare(view)
        return view

    return build


def request_features(body: type) -> RequestFeatures:
    """Turn a class whose attributes are expressions over the request's fields into `RequestFeatures`."""
    built = RequestFeatures(
        check_id(body.__name__, "feature group"), _attributes(body, Node), (body.__doc__ or "").strip()
    )
    declare(built)
    return built


def _attributes(body: type, kind: Any) -> dict[str, Any]:
    found = {name: value for name, value in vars(body).items() if not name.startswith("_")}
    wrong = [name for name, value in found.items() if not isinstance(value, kind)]
    if wrong or not found:
        raise Invalid(
            f"{body.__name__} has {f'{wrong[0]} = {found[wrong[0]]!r}' if wrong else 'no features'}.",
            fix="make its attributes features: ms.count(window='1h'), ms.last('x'), or an expression of ms.col('x').",
        )
    return found


@dataclass(frozen=True, eq=False)
class Observations:
    """What predictions are made for, and when: one observation a row of `source`.

    Args:
        source: Its columns are the entities' keys and the fields that a request brings.
        keys: The entities concerned; the source has their key columns.
        at: The instant at which the prediction is made, an expression over the row. Offline it decides what is known;
            online the clock does.
    """

    source: Source
    _: KW_ONLY
    keys: Sequence[Entity]
    at: Node

    def __post_init__(self) -> None:
        missing = [name for entity in self.keys for name in entity.keys if name not in self.source.columns]
        if missing:
            raise Invalid(
                f"Observations of source {self.source.name!r} lack the key columns {missing}.",
                fix=f"the source has {sorted(self.source.columns)}.",
            )
        declare(self)


class Status(StrEnum):
    """What a stored feature's value is worth, online."""

    PRESENT = "PRESENT"
    NULL = "NULL"  # known, and null
    EXPIRED = "EXPIRED"  # older than its TTL, so null
    MISSING = "MISSING"  # never seen for this entity


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """How far a view has been materialised: through which instant, and over which rows of the lake.

    Marks are ordered, the instant first, so that of two materialisations at once the one that saw less never hides
    the other's.
    """

    position: int  # UTC epoch microseconds
    landed: int = 0  # how many rows the lake held
    newest: int = -1  # the largest `_seq` among them
    until: int = 0  # rows that become visible by then are in the states, as pending; UTC epoch microseconds


@dataclass(frozen=True, slots=True)
class EntityState:
    """What an online store holds for one (view, entity): an opaque payload, and how new it is.

    `position` is UTC epoch microseconds: everything visible by then is in the payload. `landed` is how many rows the
    lake held. A store keeps the state with the largest (position, landed).
    """

    position: int
    payload: bytes
    landed: int = 0


@dataclass(frozen=True, slots=True)
class MaterialiseReport:
    """What one materialisation did."""

    view: str
    through: int  # UTC epoch microseconds
    entities: int
    rows: int
