"""Embeddings as features: the vector of a text column by an encoder, and the similarity of two such vectors.

An embedding is a feature function whose code is the declaration of its encoder. It is computed at ingestion, once for
each distinct text, and stored; both reads take what is stored, so they cannot differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from mainspring.core.definition_registry import collecting, declare, expect
from mainspring.core.errors import Invalid
from mainspring.core.expr import Column, Expr
from mainspring.core.ids import check_id
from mainspring.core.schema import DType
from mainspring.data.model import Source
from mainspring.features.functions.code import Code
from mainspring.features.functions.declaring import MAX_OUTPUTS, view_of
from mainspring.features.functions.model import ENCODER, DerivedSource, FeatureFunction
from mainspring.features.model import Entity, FeatureView
from mainspring.vectors.declaring import Encoder

_BATCH_ROWS = 4096


def embedding(
    name: str,
    *,
    source: Source,
    column: str,
    entity: Entity,
    encoder: Encoder,
    ttl: str | int | None = None,
    description: str = "",
    owner: str = "",
    tags: Mapping[str, str] | None = None,
) -> FeatureView:
    """Return a view with the vector of the entity's last text: the features `COLUMN_0`, `COLUMN_1`, ...

    They are computed for each row at ingestion, once for each distinct text, and stored. A text that is null or blank
    has none.

    Args:
        name: Name of the view.
        column: Column of `source` with the text.
        encoder: A registered model of a named version, or a service; with its dimension, 1024 at most. Another version
            is another feature.
        ttl: As of `ms.last`.

    Raises:
        Invalid: An argument is of another kind, the column is no text of the source, or the encoder has no dimension or
            names no version.
    """
    check_id(name, "feature view")
    expect(source, Source, f"The source of embedding {name!r}", fix="give an ms.Source itself, without quotes.")
    expect(entity, Entity, f"The entity of embedding {name!r}", fix="give an ms.Entity itself, without quotes.")
    expect(encoder, Encoder, f"The encoder of embedding {name!r}", fix="give an ms.Encoder.")
    if source.columns.get(column) is not DType.String:
        texts = sorted(each for each, dtype in source.columns.items() if dtype is DType.String)
        raise Invalid(f"Embedding {name!r} is of {column!r}, no text of {source.name!r}.", fix=f"name one of {texts}.")
    if encoder.dimension is None or encoder.dimension > MAX_OUTPUTS:
        raise Invalid(
            f"Encoder {encoder.name!r} of embedding {name!r} has the dimension {encoder.dimension}.",
            fix=f"write dimension=384, as its model has it, up to {MAX_OUTPUTS}.",
        )
    if not encoder.service and not encoder.reference.partition(":")[2]:
        raise Invalid(
            f"Encoder {encoder.name!r} of embedding {name!r} names no version, and another version is another feature.",
            fix=f'write ms.Encoder({encoder.name!r}, model="{encoder.reference.partition("@")[0]}:1", dimension=...).',
        )
    told = {"name": encoder.name, "model": encoder.reference, "service": encoder.service}
    content = {**told, "dimension": encoder.dimension, "most_tokens": encoder.most_tokens}
    code = Code("ms.Encoder", encoder.name, msgspec.json.encode(content, order="sorted").decode())
    function = FeatureFunction(
        name,
        code,
        {column: DType.String},
        {},
        {column: encoder.dimension},
        batch_rows=_BATCH_ROWS,
        engine=ENCODER,
    )
    view = view_of(function, source, entity, ttl, description, owner, dict(tags or {}))
    declare(view)
    return view


def encoder_of(function: FeatureFunction) -> Encoder:
    """Return the encoder that an embedding declares."""
    with collecting():
        return Encoder(**msgspec.json.decode(function.code.text))


def cosine(left: FeatureView, right: FeatureView) -> Expr:
    """Return the similarity of two embeddings by one encoder, for an attribute under `@ms.on_demand_features`.

    Vectors have length 1, so it is the sum of the products; null where one of them is.

    Raises:
        Invalid: A view is no embedding, or their encoders differ.
    """
    functions = [_function(each) for each in (left, right)]
    if functions[0].code != functions[1].code:
        raise Invalid(
            f"The embeddings {left.name} and {right.name} have different encoders, {functions[0].code.text} and "
            f"{functions[1].code.text}.",
            fix="give both one encoder: vectors of two are not alike.",
        )
    products: Sequence[Expr] = [
        _feature(left, one) * _feature(right, other)
        for one, other in zip(functions[0].outputs, functions[1].outputs, strict=True)
    ]
    while len(products) > 1:  # in pairs: the sum of a thousand one by one would be a thousand levels deep
        pairs = [products[at : at + 2] for at in range(0, len(products), 2)]
        products = [pair[0] + pair[1] if len(pair) == 2 else pair[0] for pair in pairs]
    return products[0]


def _feature(view: FeatureView, name: str) -> Column:
    return view[name]


def _function(view: FeatureView) -> FeatureFunction:
    given: object = view  # projects may give anything
    source = given.source if isinstance(given, FeatureView) else None
    if not isinstance(source, DerivedSource) or source.function.engine != ENCODER:
        raise Invalid(f"{view!r} is no embedding.", fix="give two views of ms.embedding.")
    return source.function
