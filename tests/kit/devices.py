"""Expressions and packages as a device has them."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kit.expressions import HOSTILE
from kit.serving import KEY, bundle
from mainspring.core.expr import Node, as_expr, col, greatest, least
from mainspring.core.expr.evaluate import evaluate, vector
from mainspring.core.expr.types import columns_of
from mainspring.core.schema import DType, Schema
from mainspring.deploy.edge.building import content_of
from mainspring.deploy.edge.package import write_package
from mainspring.deploy.edge.program import Program, Programmer
from mainspring.registry.model import Bundle
from mainspring.security.signing import SigningKey
from mainspring_edge.features import Features


def program(expressions: Sequence[Node], schema: Schema) -> Program:
    """Return the program of expressions over the columns of a schema; the features are named f0, f1, ..."""
    made = Programmer()
    steps = {
        f"f{place}": made.compute(expression, schema, lambda name: made.read(name, schema[name].value))
        for place, expression in enumerate(expressions)
    }
    return made.program(steps)


def on_device(expressions: Sequence[Node], columns: dict[str, list[Any]], schema: Schema) -> list[list[Any]]:
    """Return each expression's values, computed as a device does."""
    features = Features(program(expressions, schema).encode())
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return [list(values) for values in zip(*features.rows(rows), strict=True)]


def here(expressions: Sequence[Node], columns: dict[str, list[Any]], schema: Schema) -> list[list[Any]]:
    """Return each expression's values, computed by `core.expr` on NumPy."""
    rows = len(next(iter(columns.values())))
    found = []
    for expression in expressions:
        used = {name: vector(columns[name], schema[name]) for name in columns_of(expression)}
        found.append(evaluate(expression, used, schema, rows).to_list())
    return found


def hostile_pairs(dtype: DType) -> tuple[list[Node], dict[str, list[Any]], Schema]:
    """Return what is done with two values, and with one, of a type; pairs of its hostile values; their types."""
    a, b = col("a"), col("b")
    values = [*HOSTILE[dtype], None]
    others = [*values[::6], *values[-8:]] if dtype is DType.String else values  # of texts the last are the strangest
    done = [a < b, a <= b, a > b, a >= b, a == b, a != b, least(a, b), greatest(a, b), a.coalesce(b), a.is_null()]
    if dtype.numeric:
        done += [a + b, a - b, a * b, a / b, -a, abs(a), a.sqrt(), a.clip(-1, 2)]
        done += [each(a) for each in (type(a).floor, type(a).ceil, type(a).round)]
    if dtype is DType.String:
        done += [a + b, a.contains(b), a.starts_with(b), a.ends_with(b), a.replace(b, "x"), a.lower(), a.upper()]
        done += [a.strip(), a.length(), a.slice(1), a.slice(0, 2), a.one_of([text for text in values if text])]
    columns = {"a": [one for one in values for _ in others], "b": [other for _ in values for other in others]}
    return [as_expr(each) for each in done], columns, {"a": dtype, "b": dtype}


def bits(value: Any) -> Any:
    """Return what tells two values apart to the last bit; every NaN is the same."""
    if isinstance(value, float | np.floating):
        return "NaN" if math.isnan(value) else struct.pack("<d", value)
    return type(value).__name__, value


TRUSTED = KEY.public


def package(folder: Path, made: Bundle | None = None, *, version: int = 1, key: SigningKey = KEY, **about: Any) -> Path:
    """Write the package of a bundle, by default of `kit.serving`'s, and return its folder.

    Args:
        about: Replaces fields of `edge.json`.
    """
    content = content_of(made or bundle(), stored_as_inputs=True)
    write_package(folder, {**content.about, "project": "toy", "version": version, **about}, content.files, key)
    return folder
