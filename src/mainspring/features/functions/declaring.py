"""`python_features`: a function of the project as a feature view, or as request features."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from mainspring.core.definition_registry import declare, expect, expect_each
from mainspring.core.errors import Invalid
from mainspring.core.expr import Column
from mainspring.core.ids import check_id
from mainspring.core.schema import DType, Schema, check_schema
from mainspring.core.time import MINUTE, SECOND, parse_duration
from mainspring.data.model import Source, length
from mainspring.features.functions.code import code_of
from mainspring.features.functions.model import (
    COST_US,
    DERIVED_FROM,
    FAIL,
    FAILURE,
    NULL,
    OWN_COLUMNS,
    QUARANTINE,
    DerivedSource,
    FeatureFunction,
    RequestFunction,
)
from mainspring.features.model import Aggregation, Entity, FeatureView, RequestFeatures

MAX_OUTPUTS = 1024
ENGINES = ("ray",)
_LIMIT_US = {"ingestion": 10 * MINUTE, "request": SECOND}
_ON_ERROR = {"ingestion": (NULL, QUARANTINE, FAIL), "request": (NULL, FAIL)}


class Vector(msgspec.Struct, frozen=True):
    """The type of an output of shape (rows, length): Float32 numbers, each of them a feature."""

    length: int


def vector(length: int) -> Vector:
    """Return the type of an output that is a list of `length` numbers for each row, such as an embedding.

    Raises:
        Invalid: `length` is not from 1 to 1024.
    """
    given: object = length  # what a project declares may be anything
    if not isinstance(given, int) or isinstance(given, bool) or not 1 <= length <= MAX_OUTPUTS:
        raise Invalid(f"A vector has the length {length!r}.", fix=f"give a whole number from 1 to {MAX_OUTPUTS}.")
    return Vector(length)


def python_features(
    *,
    source: Source,
    columns: Sequence[str],
    returns: Mapping[str, DType | Vector],
    entity: Entity | None = None,
    when: str = "ingestion",
    on_error: str = NULL,
    timeout: str | int | None = None,
    batch_rows: int = 1024,
    ttl: str | int | None = None,
    version: str = "",
    engine: str = "",
    owner: str = "",
    tags: Mapping[str, str] | None = None,
) -> Callable[[Callable[..., Any]], Any]:
    """Turn a function over Arrow arrays into features named after it.

    The function gets each of `columns` by keyword, as an Arrow array of shape (rows,), and returns a mapping of each
    name in `returns` to an array, a list or a NumPy array of the same length. It must compute each row from that row
    alone. It runs in a process of its own.

    Args:
        source: The source whose rows it is computed for; with `when="request"` the source of the observations.
        returns: Names and types of the outputs; `ms.vector(n)` for a list of numbers.
        entity: With `when="ingestion"`: the entity of the view. Each feature is the last value of the entity.
        when: `ingestion`: computed once for each row and stored, a `FeatureView`; `request`: computed from the fields
            of each request, `RequestFeatures`.
        on_error: What becomes of a row for which the function raises: `null` (and counted), `quarantine` (with
            `when="ingestion"`: the entity keeps its previous value), `fail` (the call fails).
        timeout: Maximum duration of a call; by default 10 min at ingestion, 1 s for a request.
        batch_rows: Maximum rows of a call at ingestion.
        ttl: As of `ms.last`, with `when="ingestion"`.
        version: A text that makes a new version, where a file or a package that the function uses has changed.
        engine: `ray` computes it on a Ray cluster at ingestion; by default in a process of this machine.

    Raises:
        Invalid: An argument is of another kind, a column does not exist, or the function is not a plain function of a
            module.
    """
    expect(source, Source, "The source of a feature function", fix="give an ms.Source itself, without quotes.")
    if when not in _LIMIT_US:
        raise Invalid(f"A feature function is computed at {when!r}.", fix="use when='ingestion' or when='request'.")
    if on_error not in _ON_ERROR[when]:
        allowed = " or ".join(map(repr, _ON_ERROR[when]))
        raise Invalid(f"A feature function has on_error={on_error!r}, with when={when!r}.", fix=f"use {allowed}.")
    if engine not in ("", *ENGINES) or (engine and when == "request"):
        raise Invalid(
            f"A feature function has the engine {engine!r}, with when={when!r}.",
            fix=f"leave it out, or use one of {', '.join(ENGINES)} with when='ingestion'.",
        )
    if when == "ingestion":
        expect(entity, Entity, "The entity of a feature function", fix="give an ms.Entity itself, without quotes.")
    elif entity is not None or ttl is not None:
        raise Invalid(
            "A feature function that is computed on request has an entity or a TTL.",
            fix="leave out entity and ttl: it reads the request alone.",
        )

    def build(function: Callable[..., Any]) -> FeatureView | RequestFeatures:
        name = check_id(getattr(function, "__name__", repr(function)), "feature function")
        plain, vectors = _returned(name, returns)
        limit = _LIMIT_US[when] if timeout is None else parse_duration(timeout)
        made = FeatureFunction(
            name, code_of(function), _inputs(name, function, source, columns), plain, vectors, on_error, limit,
            batch_rows, version, engine,
        )  # fmt: skip
        _check(made)
        described = inspect.getdoc(function) or ""
        if entity is None:
            request = RequestFunction(
                name, description=described, owner=owner, tags=dict(tags or {}), function=made, source=source
            )
            declare(request)
            return request
        view = view_of(made, source, entity, ttl, described, owner, dict(tags or {}))
        declare(view)
        return view

    return build


def view_of(
    function: FeatureFunction,
    source: Source,
    entity: Entity,
    ttl: str | int | None,
    description: str,
    owner: str,
    tags: dict[str, str],
) -> FeatureView:
    derived = derive(source, entity.keys, function)
    age = None if ttl is None else parse_duration(ttl)
    features = {name: Aggregation(kind="last", of=Column(name), ttl=age) for name in function.outputs}
    return FeatureView(function.name, entity, derived, features, description, owner, tags=tags)


def derive(parent: Source, keys: Schema, function: FeatureFunction) -> DerivedSource:
    """Return the source of a function's outputs, whose name has the version.

    Raises:
        Invalid: The parent lacks key columns, or an output has the name of one of its columns.
    """
    missing = [key for key in keys if key not in parent.columns]
    if missing:
        raise Invalid(
            f"{function.name} is of an entity with the keys {list(keys)}, but source {parent.name!r} lacks {missing}.",
            fix=f"use an entity of this source; it has {sorted(parent.columns)}.",
        )
    carried = [*keys, *parent.id, *([parent.retracted] if parent.retracted else [])]
    schema = {name: parent.columns[name] for name in carried if name not in parent.times}
    for name in (name for name in function.outputs if name in {*schema, *parent.times, *OWN_COLUMNS}):
        raise Invalid(f"{function.name} returns {name!r}, which is another column already.", fix="rename it.")
    own = {DERIVED_FROM: DType.Int64, FAILURE: DType.String, COST_US: DType.Float32}
    personal = [name for name in schema if name in parent.pii]
    if set(function.columns) & set(parent.pii):  # what is computed from personal values is personal
        personal += [*function.outputs, FAILURE]
    content = [function.digest, parent.name, schema, parent.times, parent.lag_us, parent.id, parent.retracted]
    version = hashlib.sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()[:12]
    return DerivedSource(
        f"{function.name}__{version}",
        schema={**schema, **function.outputs, **own},
        event_time=parent.event_time,
        recorded_time=parent.recorded_time,
        lag=parent.lag_us,
        id=parent.id,
        retracted=parent.retracted,
        checks=[length(FAILURE, high=0)] if function.on_error == QUARANTINE else [],
        description=f"{', '.join(function.outputs)[:200]} of {function.code}, computed from {parent.name}.",
        pii=personal,
        parent=parent,
        function=function,
    )  # fmt: skip


def _returned(name: str, returns: Any) -> tuple[dict[str, DType], dict[str, int]]:
    expect(returns, Mapping, f"What {name} returns", fix='write names with their types: {"length": ms.Int32}.')
    vectors = {each: kind.length for each, kind in returns.items() if isinstance(kind, Vector)}
    plain = {each: kind for each, kind in returns.items() if not isinstance(kind, Vector)}
    check_schema({**plain, **dict.fromkeys(vectors, DType.Float32)}, f"The result of {name}")
    return plain, vectors


def _inputs(name: str, function: Callable[..., Any], source: Source, columns: Sequence[str]) -> dict[str, DType]:
    expect_each(columns, str, f"The columns of {name}", fix='name columns of the source: ["text"].')
    unknown = [column for column in columns if column not in source.columns]
    if unknown or not columns:
        raise Invalid(
            f"{name} reads {unknown or 'no columns'}, which source {source.name!r} does not have.",
            fix=f"name columns of it: {sorted(source.columns)}.",
        )
    try:
        inspect.signature(function).bind(**dict.fromkeys(columns))
    except TypeError as error:
        raise Invalid(
            f"{name} cannot be called with {list(columns)}: {error}.", fix=f"write def {name}({', '.join(columns)})."
        ) from error
    return {column: source.columns[column] for column in columns}


def _check(function: FeatureFunction) -> None:
    count = len(function.outputs)
    if not 1 <= count <= MAX_OUTPUTS:
        raise Invalid(f"{function.name} returns {count} features.", fix=f"return 1 to {MAX_OUTPUTS}.")
    if len({name.casefold() for name in function.outputs}) < len(function.returns) + sum(function.vectors.values()):
        raise Invalid(f"{function.name} returns two features of one name.", fix="rename one of them.")
    if function.timeout_us <= 0 or not 1 <= function.batch_rows <= 65_536:
        raise Invalid(
            f"{function.name} has a time limit of {function.timeout_us} µs and batches of {function.batch_rows} rows.",
            fix="give a positive duration, and 1 to 65536 rows.",
        )
