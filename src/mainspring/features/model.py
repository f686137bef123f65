"""Entities, feature views and observations, as a user declares them.

Definitions are data: `apply` stores them, a bundle contains them, and two engines (features.offline, features.online)
read them and give the same value at every microsecond.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from enum import StrEnum
from typing import Any

import msgspec

from mainspring.core import html
from mainspring.core.definition_registry import declare, expect, expect_each
from mainspring.core.errors import Invalid, NotFound
from mainspring.core.expr import Column, Expr, Node, Operators
from mainspring.core.expr.render import render
from mainspring.core.expr.types import columns_of, dtype_of
from mainspring.core.ids import check_id
from mainspring.core.schema import DType, Schema, check_schema
from mainspring.core.time import DAY, HOUR, MINUTE, format_duration
from mainspring.data.model import Source


@dataclass(frozen=True, eq=False)
class Entity:
    """The subject of features: a customer, an airport. `keys` are the columns that identify it, with types."""

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


class Aggregation(Operators, msgspec.Struct, frozen=True, eq=False, kw_only=True, omit_defaults=True):
    """One stored feature of a view. In the class that declares it, it can be computed with like a column.

    `kind` is `last` (a last value with an optional TTL) or a window's: count, sum, mean, variance, std, min, max,
    first, newest, distinct, quantile, top. `of` is the aggregated expression over the source's row (`None` for a bare
    count), `where` an optional filter.
    """

    kind: str
    of: Node | None = None
    window: int | None = None  # microseconds
    ttl: int | None = None  # microseconds, for `last`
    where: Node | None = None
    default: float | None = None  # instead of null for an empty window
    description: str = ""
    nth: int | None = None  # of newest: 1 is the newest; of top: 1 is the most frequent
    share: float | None = None  # of quantile: in [0, 1]


class Several(msgspec.Struct, frozen=True, eq=False):
    """Several aggregations declared together. An attribute `x` of a view becomes its features `x_<suffix>`.

    In expressions, one of them is `x[suffix]`: `delays[1]`, `delay["p90"]`.
    """

    aggregations: dict[str, Aggregation]

    def __getitem__(self, suffix: str | int) -> Aggregation:
        if str(suffix) not in self.aggregations:
            raise NotFound(f"There is no {suffix!r} among {list(self.aggregations)}.", fix="use one of them.")
        return self.aggregations[str(suffix)]


def hop(window: int) -> int:
    """Return the width of a window's tiles, µs: 5 min for windows up to 12 h, 1 h up to 12 d, 1 d above."""
    if window <= 12 * HOUR:
        return 5 * MINUTE
    return HOUR if window <= 12 * DAY else DAY


class FeatureColumn(Column, frozen=True, eq=False, tag="column"):
    """A feature of a declared view, by its full name, that remembers the view."""

    view: Any


@dataclass(frozen=True, eq=False)
class FeatureView:
    """Features of one entity from one source. Built by `feature_view`.

    A feature is an attribute of the view, for use in on-demand features: `OriginTraffic.departures_1h`, and
    `OriginTraffic["owner"]` where the name is taken.

    Args:
        features: The stored features.
        derived: Expressions over the stored features, by their names in this view; computed at every read.
        order: The names of both in the order of declaration; by default the stored ones first.
    """

    name: str
    entity: Entity
    source: Source
    features: Mapping[str, Aggregation]
    description: str = ""
    owner: str = ""
    derived: Mapping[str, Node] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The features' names, stored and derived: `departures_1h`."""
        return self.order or (*self.features, *self.derived)

    @property
    def columns(self) -> tuple[str, ...]:
        """The features' full names: `OriginTraffic.departures_1h`."""
        return tuple(f"{self.name}.{feature}" for feature in self.names)

    def __getitem__(self, feature: str) -> Column:
        if feature in self.features or feature in self.derived:
            return FeatureColumn(f"{self.name}.{feature}", self)
        raise NotFound(f"View {self.name!r} has no feature {feature!r}.", fix=f"it has {sorted(self.names)}.")

    def __getattr__(self, name: str) -> Column:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self[name]
        except NotFound as error:
            raise AttributeError(str(error)) from None

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.names]

    def __repr__(self) -> str:
        return f"<feature view {self.name} of {self.entity.name} from {self.source.name}: {', '.join(self.names)}>"

    def _repr_html_(self) -> str:
        rows = [(html.code(name), *self._cells(name)) for name in self.names]
        note = f"of {self.entity.name} ({', '.join(self.entity.keys)}), from {self.source.name}"
        about = [html.paragraph(text) for text in (self.description, self.owner and f"owner {self.owner}") if text]
        headers = ("feature", "kind", "of", "where", "over", "")
        return html.joined(html.title(self.name, note), *about, html.table(headers, rows))

    def _cells(self, name: str) -> tuple[object, ...]:
        if name in self.derived:
            return "derived", html.code(render(self.derived[name])), "", "", ""
        feature = self.features[name]
        of, where = (
            html.code("" if expression is None else render(expression)) for expression in (feature.of, feature.where)
        )
        span = feature.window if feature.ttl is None else feature.ttl
        return feature.kind, of, where, "" if span is None else format_duration(span), feature.description


@dataclass(frozen=True, eq=False)
class RequestFeatures:
    """Features computed on demand, by the same expressions in training and in serving.

    Args:
        features: Expressions over the fields of the request and over features of views by their full names.
        views: The views whose features they use; they are read together with these features.
    """

    name: str
    features: Mapping[str, Node]
    description: str = ""
    owner: str = ""
    views: tuple[FeatureView, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.features)

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(f"{self.name}.{feature}" for feature in self.features)

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of the request that they use, sorted. Their names have no dot, those of features have one."""
        used = set().union(*(columns_of(expression) for expression in self.features.values()))
        return tuple(sorted(name for name in used if "." not in name))

    def __repr__(self) -> str:
        return f"<request features {self.name}: {', '.join(self.names)}>"

    def _repr_html_(self) -> str:
        rows = [(html.code(name), html.code(render(expression))) for name, expression in self.features.items()]
        note = f"from {', '.join((*self.fields, *(view.name for view in self.views)))}"
        return html.joined(html.title(self.name, note), html.table(("feature", "definition"), rows))


FeatureGroup = FeatureView | RequestFeatures


def views_of(groups: Sequence[FeatureGroup]) -> list[FeatureView]:
    """Return the views that must be read for `groups`, each once: those in `groups`, then those that others use."""
    views = {group.name: group for group in groups if isinstance(group, FeatureView)}
    for group in groups:
        if isinstance(group, RequestFeatures):
            for view in group.views:
                views.setdefault(view.name, view)
    return list(views.values())


@dataclass(frozen=True, eq=False)
class Consent:
    """Consent of subjects to a purpose: rows of a source, of which the newest of a subject counts.

    Args:
        source: Source with the entity's key columns, a row for each time that consent is given or withdrawn.
        entity: The subjects who consent.
        purpose: The purpose, a value of the column `by`.
        given: Boolean column: consent is given, or withdrawn.
        by: Column of text with the purpose.

    Raises:
        Invalid: The source lacks a column, a column has another type, or the source's rows are versions of facts.
    """

    source: Source
    _: KW_ONLY
    entity: Entity
    purpose: str
    given: str = "given"
    by: str = "purpose"

    def __post_init__(self) -> None:
        expect(self.source, Source, "The source of a consent", fix="give an ms.Source itself, without quotes.")
        expect(self.entity, Entity, "The entity of a consent", fix="give an ms.Entity itself, without quotes.")
        expect(self.purpose, str, "The purpose of a consent", fix='name it: purpose="advertising".')
        needed = {**self.entity.keys, self.given: DType.Boolean, self.by: DType.String}
        for name, dtype in needed.items():
            if self.source.columns.get(name) != dtype:
                raise Invalid(
                    f"Consents of source {self.source.name!r} need a column {name!r} of type {dtype!r}.",
                    fix=f"it has {sorted(self.source.columns)}; name others with given= and by=.",
                )
        if self.source.versioning is not None:
            raise Invalid(
                f"Source {self.source.name!r} has an id, so its rows are no decisions, each of its own time.",
                fix="declare it without id.",
            )


@dataclass(frozen=True, eq=False)
class Observations:
    """Observations: entities and instants of predictions, one per row of `source`.

    Args:
        source: Source whose columns are the entities' keys and the request fields.
        keys: The entities concerned; the source has their key columns.
        at: The instant of the prediction, an expression over the row. Offline it determines what is known; online the
            clock does.
        where: Condition that selects the observations; a row for which it is false or null is not one. It selects data
            for training and evaluation. Online every request is answered.
        consent: Observations count only of subjects who had consented at their instant, and have not withdrawn it by
            the time that the rows are read for. Without a row there is no consent.

    Raises:
        Invalid: An argument is of another kind, the source lacks key columns, or `where` is not a condition over its
            columns.
    """

    source: Source
    _: KW_ONLY
    keys: Sequence[Entity]
    at: Node
    where: Node | None = None
    consent: Consent | None = None

    def __post_init__(self) -> None:
        owner = "The {} of observations"
        expect(self.source, Source, owner.format("source"), fix="give an ms.Source itself, without quotes.")
        expect_each(self.keys, Entity, owner.format("keys"), fix="give a list of entities: keys=[card, shop].")
        expect(self.at, Expr, owner.format("time"), fix='write an expression: at=ms.col("placed_at").')
        if self.where is not None:
            self._check_where(self.where)
        if self.consent is not None:
            expect(self.consent, Consent, owner.format("consent"), fix="give an ms.Consent.")
        consenting = [] if self.consent is None else [self.consent.entity]
        entities = [*self.keys, *consenting]
        missing = [name for entity in entities for name in entity.keys if name not in self.source.columns]
        if missing:
            raise Invalid(
                f"Observations of source {self.source.name!r} lack the key columns {missing}.",
                fix=f"the source has {sorted(self.source.columns)}.",
            )
        declare(self)

    def _check_where(self, where: Node) -> None:
        owner = f"Observations of source {self.source.name!r}"
        if not isinstance(where, Node):
            raise Invalid(f"{owner} are filtered by {where!r}.", fix="filter by a condition: ms.col('amount') > 0.")
        unknown = sorted(columns_of(where) - set(self.source.columns))
        if unknown:
            raise Invalid(
                f"{owner} are filtered by {unknown}, which the source does not have.",
                fix=f"it has {sorted(self.source.columns)}.",
            )
        dtype = dtype_of(where, self.source.columns)
        if dtype != DType.Boolean:
            raise Invalid(
                f"{owner} are filtered by a {dtype!r}.", fix="filter by a condition, such as ms.col('amount') > 0."
            )


class Status(StrEnum):
    """Status of a stored feature's value, online."""

    PRESENT = "PRESENT"
    NULL = "NULL"  # known to be null; the value is the feature's default, if any
    EXPIRED = "EXPIRED"  # older than its TTL, so null
    MISSING = "MISSING"  # never seen for this entity
    UNAVAILABLE = "UNAVAILABLE"  # the store did not respond, so the value is the default, as if never seen


def shown_status(status: str, value: object) -> str:
    """Return a status for display: `DEFAULT` if the feature's default replaces null."""
    return "DEFAULT" if status == Status.NULL and value is not None else status


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """Progress of a view's materialisation: the instant it reached, and the rows of the lake it covers.

    Marks are ordered by instant, then rows, so that of two concurrent materialisations the one with less data never
    hides the other.
    """

    position: int  # UTC epoch microseconds
    landed: int = 0  # number of rows in the lake
    newest: int = -1  # their largest `_seq`
    until: int = 0  # rows that become visible by then are in the states as pending; UTC epoch microseconds


SEALED = "sealed."  # prefix of the names that views have in an online store where their states are encrypted


class EntityState(msgspec.Struct, frozen=True, gc=False):
    """State of one (view, entity) in an online store: an opaque payload, and its freshness.

    `position` is UTC epoch microseconds: all rows visible by then are in the payload. `landed` is the number of rows in
        the lake. A store keeps the state with the largest (position, landed).
    """

    position: int
    payload: bytes
    landed: int = 0


@dataclass(frozen=True, slots=True)
class MaterialiseReport:
    """Report of one materialisation."""

    view: str
    through: int  # UTC epoch microseconds
    entities: int
    rows: int
    seconds: float = 0.0
    largest_bytes: int = 0  # of one entity's state
    warnings: tuple[str, ...] = ()
