"""Construction of feature groups from a class body: expressions over aggregations become expressions over named
columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, overload

from mainspring.core.definition_registry import declare, expect
from mainspring.core.errors import Invalid
from mainspring.core.expr import Column, Expr, Node, Unnamed, as_expr, rewrite
from mainspring.core.ids import check_id
from mainspring.data.model import Source
from mainspring.features.model import Aggregation, Entity, FeatureColumn, FeatureView, RequestFeatures, Several


def feature_view(
    *, entity: Entity, source: Source, owner: str = "", tags: Mapping[str, str] | None = None
) -> Callable[[type], FeatureView]:
    """Turn a class whose attributes are aggregations, and expressions over them, into a `FeatureView` named after it.

    Raises:
        Invalid: An argument has another type, the class has no aggregation, one of its public attributes is neither an
            aggregation nor an expression, or an expression uses a feature of another class.
    """

    expect(entity, Entity, "The entity of a feature view", fix="give an ms.Entity itself, without quotes.")
    expect(source, Source, "The source of a feature view", fix="give an ms.Source itself, without quotes.")

    def build(body: type) -> FeatureView:
        stored, derived, order = _view_members(body)
        view = FeatureView(
            check_id(body.__name__, "feature view"),
            entity,
            source,
            stored,
            (body.__doc__ or "").strip(),
            owner,
            derived,
            order,
            dict(tags or {}),
        )
        declare(view)
        return view

    return build


@overload
def request_features(body: type) -> RequestFeatures: ...


@overload
def request_features(
    *, owner: str = "", tags: Mapping[str, str] | None = None
) -> Callable[[type], RequestFeatures]: ...


def request_features(
    body: type | None = None, *, owner: str = "", tags: Mapping[str, str] | None = None
) -> RequestFeatures | Callable[[type], RequestFeatures]:
    """Turn a class whose attributes are expressions into `RequestFeatures`; `on_demand_features` is the same function.

    The expressions are over fields of the request (`ms.col("seats")`) and features of views
    (`OriginTraffic.departures_1h`). Views that they use need not be among a model's features: they are read, but passed
    to the model only if it lists them. The decorator can be used with or without arguments.

    Raises:
        Invalid: The class has no feature, or one of its public attributes is not such an expression.
    """

    def build(body: type) -> RequestFeatures:
        features, views = _request_members(body)
        built = RequestFeatures(
            check_id(body.__name__, "feature group"),
            features,
            (body.__doc__ or "").strip(),
            owner,
            views,
            dict(tags or {}),
        )
        declare(built)
        return built

    return build if body is None else build(body)


on_demand_features = request_features


def _attributes(body: type, kinds: tuple[type, ...]) -> dict[str, Any]:
    """Return the public attributes of a class body, in order.

    Raises:
        Invalid: There is none, or one has another type.
    """
    attributes = {name: value for name, value in vars(body).items() if not name.startswith("_")}
    wrong = [name for name, value in attributes.items() if not isinstance(value, kinds)]
    if wrong or not attributes:
        raise Invalid(
            f"{body.__name__} has {f'{wrong[0]} = {attributes[wrong[0]]!r}' if wrong else 'no features'}.",
            fix="make its attributes features: ms.count(window='1h'), ms.last('x'), or an expression of ms.col('x').",
        )
    return attributes


def _view_members(body: type) -> tuple[dict[str, Aggregation], dict[str, Node], tuple[str, ...]]:
    """Return a view's stored features, the expressions over them (which name stored features only), and the order.

    Raises:
        Invalid: An expression uses an aggregation that is not an attribute, or a feature of another view.
    """
    members = dict(_expanded(body))
    stored = {name: value for name, value in members.items() if isinstance(value, Aggregation)}
    if not stored:
        raise Invalid(
            f"{body.__name__} has no aggregation, so there is nothing to compute from.",
            fix="give it an aggregation, or use ms.on_demand_features.",
        )
    names: dict[int, str] = {}
    for name, value in stored.items():
        names.setdefault(id(value), name)
    derived: dict[str, Node] = {}
    for name, value in members.items():
        if name not in stored:
            derived[name] = _bound(f"{body.__name__}.{name}", as_expr(value), names, derived)
    return stored, derived, tuple(members)


def _expanded(body: type) -> Iterator[tuple[str, Any]]:
    names = set()
    for attribute, value in _attributes(body, (Aggregation, Expr, Several)).items():
        several = isinstance(value, Several)
        members = (
            {f"{attribute}_{n}": aggregation for n, aggregation in value.aggregations.items()}
            if several
            else {attribute: value}
        )
        for name, member in members.items():
            if name in names:
                raise Invalid(f"{body.__name__}.{name} is declared twice.", fix=f"rename {attribute!r}.")
            names.add(name)
            yield name, member


def _bound(full_name: str, expr: Node, names: Mapping[int, str], derived: Mapping[str, Node]) -> Node:
    def leaf(node: Column | Unnamed) -> Node:
        if isinstance(node, Unnamed):
            if id(node.value) not in names:
                raise Invalid(
                    f"{full_name} uses {node.value!r}, which is not an attribute of the class.",
                    fix="make it a feature of its own: name = ms.count(...), then use the name.",
                )
            return Column(names[id(node.value)])
        if isinstance(node, FeatureColumn):
            raise Invalid(
                f"{full_name} uses {node.name}, a feature of another view.",
                fix="move it to a class under @ms.on_demand_features, which may use features of several views.",
            )
        return derived.get(node.name, node)

    return rewrite(expr, leaf)


def _request_members(body: type) -> tuple[dict[str, Node], tuple[FeatureView, ...]]:
    """Return expressions over request fields and views' features by their full names, and those views sorted by name.

    Raises:
        Invalid: An expression uses an aggregation of no view.
    """
    views: dict[str, FeatureView] = {}

    def leaf(node: Column | Unnamed) -> Node:
        if isinstance(node, Unnamed):
            raise Invalid(
                f"{body.__name__} uses {node.value!r}, which is not a feature of a view.",
                fix="make it a feature of a view, then write View.feature.",
            )
        if isinstance(node, FeatureColumn):
            views[node.view.name] = node.view
            return Column(node.name)
        return node

    features = {name: rewrite(as_expr(value), leaf) for name, value in _attributes(body, (Expr,)).items()}
    return features, tuple(views[name] for name in sorted(views))
