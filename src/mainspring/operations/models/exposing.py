"""Exposure of planted rows by a version: whether it was trained on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pv
import pyarrow.parquet as pq

from mainspring.core.errors import Invalid, InvalidData, NotFound
from mainspring.data.arrow import ARROW_TYPES
from mainspring.operations.models.curating import find
from mainspring.project import Project
from mainspring.registry.model import Bundle, ModelVersion
from mainspring.stats.exposure import Exposure, exposure
from mainspring.stats.metrics import class_places
from mainspring.training.flavours.scoring import score_bundle

LABEL = "label"  # column of the files, beside the inputs by their full names
MOST_ROWS = 10_000
_LEAST_ROWS = 10
_SMALLEST = 1e-12  # probability


def exposed(project: Project, reference: str, planted: Path, controls: Path) -> tuple[ModelVersion, Exposure]:
    """Return a version and the exposure of planted rows, among control rows of the same kind.

    Args:
        reference: `NAME:VERSION`, `NAME@ALIAS` or `NAME`.
        planted, controls: CSV or Parquet files with the inputs by their full names, and `label`.

    Raises:
        NotFound: There is no such version or file.
        InvalidData: A file lacks a column, or has too few or too many rows.
        Invalid: The model has several labels, or none that a loss is of.
    """
    version = find(project, reference)
    bundle = project.bundles.load(version.digest)
    known, others = (_losses(bundle, _read(path, bundle)) for path in (planted, controls))
    return version, exposure(known, others)


def _read(path: Path, bundle: Bundle) -> pa.Table:
    if not path.is_file():
        raise NotFound(f"There is no file {path}.", fix="check the path; it is relative to the current folder.")
    try:
        table = pq.read_table(path) if path.suffix == ".parquet" else pv.read_csv(path)
        columns: dict[str, Any] = {LABEL: table[LABEL]} if LABEL in table.column_names else {}
        columns |= {
            each.name: table[each.name].cast(ARROW_TYPES[each.dtype])
            for each in bundle.manifest.inputs
            if each.name in table.column_names
        }
    except (pa.ArrowException, OSError) as error:
        raise InvalidData(f"{path} cannot be read: {error}", fix="write a CSV or Parquet file.") from error
    missing = [name for name in (LABEL, *(each.name for each in bundle.manifest.inputs)) if name not in columns]
    if missing:
        raise InvalidData(f"{path} has no column {missing[0]!r}.", fix=f"add {', '.join(missing)}.")
    if not _LEAST_ROWS <= table.num_rows <= MOST_ROWS:
        raise InvalidData(f"{path} has {table.num_rows:,} rows.", fix=f"write {_LEAST_ROWS} to {MOST_ROWS:,} of them.")
    return pa.table(columns)


def _losses(bundle: Bundle, rows: pa.Table) -> np.ndarray[Any, Any]:
    """Return the loss of each row: minus the logarithm of its label's probability, or the absolute error."""
    task, scores = bundle.manifest.task, np.asarray(score_bundle(bundle, rows), np.float64)
    labels = rows[LABEL].to_pylist()
    if task == "multiclass":
        chances = scores[np.arange(len(labels)), class_places(labels, bundle.manifest.outputs)]
    elif task == "binary" and scores.ndim == 1:
        chances = np.where(np.array(labels, np.float64) > 0, scores, 1 - scores)
    elif task == "regression" and scores.ndim == 1:
        return np.abs(np.array(labels, np.float64) - scores)
    else:
        raise Invalid(f"A {task} model of {len(bundle.manifest.outputs)} labels has no loss of one label.")
    return np.asarray(-np.log(np.clip(chances, _SMALLEST, None)))
