"""Robustness of a version: its metric on held-out rows whose inputs are disturbed, paired with the undisturbed rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mainspring.core.errors import MainspringError
from mainspring.core.schema import DType
from mainspring.delivery.evidence import judge_rows
from mainspring.delivery.held_out import HeldOut, Scored
from mainspring.delivery.model import GateResult, nothing
from mainspring.registry.bundles import REFERENCE
from mainspring.registry.model import Bundle
from mainspring.stats.reference import Reference
from mainspring.training.flavours.scoring import score_bundle
from mainspring.training.gate_kinds import RobustGate

MOST_ROWS, FEWEST_ROWS = 20_000, 1_000  # spread evenly over the held-out rows
_MOST_CELLS = 4_000_000_000  # that are scored: of 2,000 inputs, each is missing once in 1,000 rows
_WHOLE = (DType.Int32, DType.Int64)


def judge_robustness(gate: RobustGate, bundle: Bundle, held_out: HeldOut, *, higher: bool) -> GateResult:
    """Return the result of a robustness gate; of several disturbances, the worst one's."""
    one_by_one = gate.kind == "missing" and not gate.share
    most = rows_scored(len(bundle.manifest.inputs)) if one_by_one else MOST_ROWS
    if len(held_out) > most:
        held_out = held_out.rows(np.unique(np.linspace(0, len(held_out) - 1, most).astype(np.int64)))
    clean = held_out.candidate
    found: list[GateResult] = []
    for name, table in _disturbed(gate, bundle, held_out.table):
        try:
            scores = score_bundle(bundle, table)
        except MainspringError as error:
            return nothing(gate, name, f"the model does not take these rows: {error.what}")
        disturbed = Scored(clean.truth, scores, clean.own, clean.threshold)
        pair = replace(held_out, candidate=disturbed, other=clean)
        found += judge_rows(gate, pair, name, higher=higher, margin=-gate.value)
    if not found:
        return nothing(gate, "disturbed rows", "the model has no input that can be disturbed.")
    return max(found, key=lambda each: _badness(each, higher))


def rows_scored(inputs: int) -> int:
    """Return how many rows are scored without each of so many inputs, so that it ends in minutes."""
    return max(FEWEST_ROWS, min(MOST_ROWS, _MOST_CELLS // max(1, inputs) ** 2))


def _badness(result: GateResult, higher: bool) -> float:
    if result.value is None or result.needed is None:
        return float("inf")
    value = result.value if result.interval is None else result.interval[0 if higher else 1]
    return (result.needed - value) * (1 if higher else -1)


def _disturbed(gate: RobustGate, bundle: Bundle, table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Yield the name of each disturbance, and the rows with it."""
    inputs = bundle.manifest.inputs
    rng = np.random.default_rng(0)
    if gate.kind == "trigger":
        values: dict[str, Any] = dict(gate.trigger)
        for name, value in values.items():
            if (place := table.column_names.index(name) if name in table.column_names else -1) >= 0:
                kind = table.schema.field(place).type
                table = table.set_column(place, name, pa.array([value] * table.num_rows).cast(kind))
        yield str(gate).partition(" worse")[0].partition(" ")[2], table
        return
    if gate.share:
        for each in inputs:
            place, gone = table.column_names.index(each.name), rng.random(table.num_rows) < gate.share
            kind = table.schema.field(place).type
            table = table.set_column(place, each.name, pc.if_else(pa.array(gone), pa.scalar(None, kind), table[place]))
        yield f"{gate.share:g} of the values missing", table
        return
    if gate.kind == "missing":
        for each in inputs:
            place = table.column_names.index(each.name)
            nulls = pa.nulls(table.num_rows, table.schema.field(place).type)
            yield f"no {each.name}", table.set_column(place, each.name, nulls)
        return
    numeric = [each for each in inputs if each.dtype not in (DType.String, DType.Boolean)]
    if not numeric or REFERENCE not in bundle.files:
        return
    columns = msgspec.json.decode(bundle.files[REFERENCE], type=Reference).columns
    for each in numeric:
        place = table.column_names.index(each.name)
        kind = table.schema.field(place).type
        noise = rng.normal(size=table.num_rows) * gate.noise * columns[each.name].sd
        noise = np.round(noise) if each.dtype in _WHOLE else noise
        moved = pc.add(table.column(place).cast(pa.float64()), pa.array(noise))
        table = table.set_column(place, each.name, moved.cast(kind, safe=False))
    yield f"noise of {gate.noise:g} sd", table
