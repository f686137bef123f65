"""Expressions and packages as a device has them."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kit.serving import KEY, bundle
from mainspring.core.expr import Node
from mainspring.core.expr.evaluate import evaluate, vector
from mainspring.core.expr.types import columns_of
from mainspring.core.schema import Schema
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
