"""Feature columns for a training function (pandas) and for a bundle's model (NumPy arrays).

Both treat nulls alike: NaN among numbers; among strings, `None` for the estimator and "" for the bundle. An empty
string counts as null from the start, so the two cannot differ by it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mainspring.core.errors import Invalid, NotConvertible
from mainspring.core.schema import DType

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Array = np.ndarray[Any, Any]

MOST_CATEGORIES = 65_536  # texts of one column that a model may split on
CATEGORIES = (
    "fit it on data.with_categories(), which XGBoost takes with enable_categorical=True, or on the numbers alone, "
    "data.train.X[data.numeric]"
)

FRAME_DTYPES: dict[DType, Any] = {
    DType.Float32: np.float32,
    DType.Boolean: np.float32,
    DType.Float64: np.float64,
    DType.Int32: np.float64,
    DType.Int64: np.float64,
    DType.String: np.object_,
}
_GRAPH_DTYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(string)": np.object_,
}


def check_feature_types(dtypes: Mapping[str, DType]) -> None:
    """Raise if a column has a type that no model accepts.

    Raises:
        Invalid: A column is a time or a duration.
    """
    for name, dtype in dtypes.items():
        if dtype not in FRAME_DTYPES:
            raise Invalid(
                f"Feature {name!r} is a {dtype!r}, which models do not accept.",
                fix="convert it to a number: its hour(), or a difference of times cast to ms.Float32.",
            )


def to_frame(table: pa.Table, dtypes: Mapping[str, DType]) -> pd.DataFrame:
    """Return the columns in `dtypes` as a frame of shape (rows, columns), with the types of `FRAME_DTYPES`."""
    import pandas as pd

    return pd.DataFrame(
        {
            name: pd.Series(to_array(table.column(name), dtype), dtype=FRAME_DTYPES[dtype])
            for name, dtype in dtypes.items()
        }
    )


def to_array(column: pa.ChunkedArray[Any], dtype: DType) -> Array:
    """Return one column of a frame, shape (rows,)."""
    import pyarrow as pa

    if dtype == DType.String:
        values = np.array(column.to_pylist(), np.object_)
        values[values == ""] = None
        return values
    kind = pa.float32() if FRAME_DTYPES[dtype] is np.float32 else pa.float64()
    return np.asarray(column.cast(kind).to_numpy())


def to_feeds(frame: pd.DataFrame | Mapping[str, Array], graph: Sequence[tuple[str, str]]) -> dict[str, Array]:
    """Return the inputs of an ONNX model: name -> array of shape (rows, 1).

    Args:
        frame: The columns by name, as from `to_frame`.
        graph: (name, ONNX type) of each input, such as `("View.count", "tensor(float)")`.

    Raises:
        NotConvertible: An input has a type that cannot represent nulls, such as `tensor(bool)`.
    """
    if other := {name: kind for name, kind in graph if kind not in _GRAPH_DTYPES}:
        raise NotConvertible(
            f"The model takes {other}, but features have the types {sorted(_GRAPH_DTYPES)}.",
            fix="export it with inputs of these types; a Boolean is 0.0, 1.0 or NaN.",
        )
    return {name: _feed(np.asarray(frame[name]), _GRAPH_DTYPES[kind]).reshape(-1, 1) for name, kind in graph}


def to_columns(frame: pd.DataFrame | Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
    """Return the inputs of a model in its framework's own format: name -> array of shape (rows, 1).

    Nulls are as in a feed, but each number keeps its type, since the framework rounds by itself.
    """
    columns = {name: np.asarray(frame[name]) for name in names}
    return {
        name: _feed(values, np.object_ if values.dtype == object else values.dtype).reshape(-1, 1)
        for name, values in columns.items()
    }


def _feed(values: Array, dtype: Any) -> Array:
    if dtype is np.object_:
        return np.array(["" if value is None else value for value in values], np.object_)
    with np.errstate(over="ignore"):  # a value beyond float32's range becomes infinity
        return values.astype(dtype)


def seen_texts(values: Iterable[Any]) -> tuple[str, ...]:
    """Return the distinct texts of a column, sorted, without null."""
    return tuple(sorted({value for value in values if isinstance(value, str)}))


def to_categories(frame: pd.DataFrame, known: Mapping[str, Sequence[Any]]) -> pd.DataFrame:
    """Return the frame with some text columns as pandas categories.

    Args:
        known: Column -> names of its categories, see `category_name`. Null is looked up as "", as in a feed; an
            unknown text becomes missing.
    """
    import pandas as pd

    columns = {}
    for column, names in known.items():
        codes = {category_text(name): code for code, name in enumerate(names)}
        if isinstance(frame[column].dtype, pd.CategoricalDtype):
            codes |= {name: code for code, name in enumerate(names)}
        column_codes = [codes.get(value if isinstance(value, str) else "", -1) for value in frame[column]]
        columns[column] = pd.Categorical.from_codes(column_codes, categories=pd.Index(list(names), dtype=object))
    return frame.assign(**columns)


def category_name(text: str) -> str:
    """Return the name of a text's category: the text itself, or its JSON where XGBoost would corrupt the text.

    XGBoost 3.2 truncates stored names by counting characters instead of bytes, and does not accept NUL.
    """
    return text if text.isascii() and "\0" not in text and not text.startswith('"') else json.dumps(text)


def category_text(name: Any) -> Any:
    """Return the text of a category from its name; a name that is not a string is returned unchanged."""
    if not (isinstance(name, str) and name.startswith('"')):
        return name
    try:
        return json.loads(name)
    except ValueError:
        return name


def exact_in_float32(values: Array) -> bool:
    """Return whether every value is exact in float32 (NaN counts as exact)."""
    wide = values.astype(np.float64)
    with np.errstate(over="ignore"):
        narrow = wide.astype(np.float32)
    return bool(np.all((narrow.astype(np.float64) == wide) | np.isnan(wide)))
