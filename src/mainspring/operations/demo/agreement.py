"""Training-serving skew: logged features compared with the point-in-time read of the same instants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from mainspring.core.errors import NotFound
from mainspring.data.arrow import ARROW_TYPES
from mainspring.features.equal import same
from mainspring.features.model import FeatureView
from mainspring.features.offline import point_in_time
from mainspring.project import Project


@dataclass(frozen=True, slots=True)
class Agreement:
    """Number of compared values, and numbers of differing values by feature."""

    predictions: int
    values: int
    differing: dict[str, int]


def compare(project: Project, endpoint: str, *, since: int, until: int, sample: int = 5_000) -> Agreement:
    """Compare the features of up to `sample` predictions with the offline read of their keys and instants.

    Raises:
        NotFound: There are no predictions in that time.
    """
    logged = project.predictions.read(endpoint, since, until)
    if not logged.num_rows:
        raise NotFound(f"There are no predictions of {endpoint!r} in this period.")
    if logged.num_rows > sample:
        chosen = np.random.default_rng(0).choice(logged.num_rows, sample, replace=False)
        logged = logged.take(np.sort(chosen))
    model = project.definitions.model(project.definitions.endpoint(endpoint).model_name)
    columns = model.observations.source.columns
    asked = [
        {**keys, **fields} for keys, fields in zip(_objects(logged, "keys"), _objects(logged, "request"), strict=True)
    ]
    observed = pa.table(
        {
            **{
                name: pa.array([row.get(name) for row in asked], _logged_type(dtype)).cast(ARROW_TYPES[dtype])
                for name, dtype in columns.items()
            },
            "_at": logged["at"].combine_chunks(),
        }
    )
    # Views and features computed from them; features of the request alone need no read.
    groups = [group for group in model.features if isinstance(group, FeatureView) or group.views]
    expected = point_in_time(observed, groups, project.lake.scan, schema=columns)
    served = _objects(logged, "features")
    names = [name for group in groups for name in group.columns if name in model.columns]
    differing = {}
    for name in names:
        wrong = sum(
            not same(row.get(name), value) for row, value in zip(served, expected[name].to_pylist(), strict=True)
        )
        if wrong:
            differing[name] = wrong
    return Agreement(len(served), len(served) * len(names), differing)


def _objects(table: pa.Table, column: str) -> list[dict[str, Any]]:
    return [msgspec.json.decode(text or "{}", type=dict[str, Any]) for text in table[column].to_pylist()]


def _logged_type(dtype: Any) -> Any:
    """Return the log's type of a column: instants are microseconds."""
    kind = ARROW_TYPES[dtype]
    return pa.int64() if pa.types.is_timestamp(kind) else kind
