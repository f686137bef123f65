"""Detection of features that repeat a column of the observation's own row: a sign that the row leaks into itself.

A feature may legitimately equal such a column if the column rarely changes, such as the country of a card. So only rows
count whose value differs from that of the entity's previous observation: a feature from the past would be wrong there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mainspring.core.schema import DType
from mainspring.features.layout import feature_dtype
from mainspring.features.model import FeatureView, views_of
from mainspring.training.model import Model

if TYPE_CHECKING:
    import pandas as pd

_FEWEST = 20  # changes, below which nothing is reported


def own_columns(model: Model, table: pa.Table) -> dict[str, str]:
    """Return full feature name -> column of the observations' source that it repeats in every row.

    Args:
        table: Observations by time with features, from `sets.assemble.labelled_observations`.
    """
    found: dict[str, str] = {}
    for view in views_of([*model.features, *model.baseline]):
        columns = [name for name in model.observations.source.columns if name not in view.entity.keys]
        for name in view.features:
            full_name = f"{view.name}.{name}"
            if full_name in table.column_names:
                repeated = [one for one in columns if _comparable(view, name, model.observations.source.columns[one])]
                own = next((one for one in repeated if _repeats(table, full_name, one, view)), None)
                if own is not None:
                    found[full_name] = own
    return found


def _comparable(view: FeatureView, name: str, dtype: DType) -> bool:
    kind = feature_dtype(view, name)
    return kind == dtype or (kind.numeric and dtype.numeric)


def _repeats(table: pa.Table, feature: str, column: str, view: FeatureView) -> bool:
    first = table.slice(0, 1_000)
    return _equal(first, feature, column) and _equal(table, feature, column) and _changes(table, feature, column, view)


def _equal(table: pa.Table, feature: str, column: str) -> bool:
    there, own = _known(table, feature, column)
    return bool((there == own).all())


def _known(table: pa.Table, feature: str, column: str) -> tuple[pd.Series[Any], pd.Series[Any]]:
    pair = table.select([feature, column]).to_pandas().dropna()
    return pair[feature], pair[column]


def _changes(table: pa.Table, feature: str, column: str, view: FeatureView) -> bool:
    """Return whether enough rows differ in `column` from their entity's previous observation."""
    rows = table.select([*view.entity.keys, feature, column]).to_pandas().dropna()
    before = rows.groupby(list(view.entity.keys), sort=False)[column].shift()
    return int((before.notna() & (before != rows[column])).sum()) >= _FEWEST
