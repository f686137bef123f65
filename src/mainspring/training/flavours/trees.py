"""Split thresholds of a scikit-learn estimator's trees, mapped back through its preprocessing steps."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mainspring.training.flavours.encoders import parts
from mainspring.training.frames import Array

if TYPE_CHECKING:
    import pandas as pd

_SAMPLE = 2000  # rows from which a column's scaling is estimated


def thresholds(estimator: Any, held_out: pd.DataFrame, numeric: Sequence[str]) -> Mapping[str, Array]:
    """Return numeric column -> split values in the column's own unit, for the columns that trees split on."""
    found: dict[str, Array] = {}
    before, last = (estimator.steps[:-1], estimator.steps[-1][1]) if hasattr(estimator, "steps") else ([], estimator)
    sample = held_out.iloc[:: max(1, len(held_out) // _SAMPLE)]
    names, matrix = _transformed(estimator, sample) if before else (list(held_out.columns), None)
    splits: dict[int, list[Array]] = defaultdict(list)
    for features, values in _splits(last, len(names)):
        for feature in np.unique(features):
            splits[int(feature)].append(values[features == feature])
    for feature, cuts in splits.items():
        column = next(
            (name for name in numeric if names[feature] == name or names[feature].endswith(f"__{name}")), None
        )
        if column is None:
            continue
        own: Array = np.unique(np.concatenate(cuts))
        if matrix is not None:
            scale = _affine(sample[column].to_numpy(np.float64), matrix[:, feature])
            if scale is None:
                continue
            own = (own - scale[1]) / scale[0]
        found[column] = own
    return found


def _transformed(pipeline: Any, sample: pd.DataFrame) -> tuple[list[str], Array | None]:
    """Return names and values of the last step's input; no names if a step does not provide them."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            steps = pipeline[:-1]
            names = [str(name) for name in steps.get_feature_names_out()]
            matrix = steps.transform(sample)
    except Exception:  # a step without names: the columns' quantiles are probed instead
        return [], None
    return names, np.asarray(matrix.todense() if hasattr(matrix, "todense") else matrix, np.float64)


def _affine(own: Array, seen: Array) -> tuple[float, float] | None:
    """Return (slope, offset) if `seen` is an affine function of `own`, else `None`."""
    known = np.isfinite(own) & np.isfinite(seen)
    if known.sum() < 2 or np.ptp(own[known]) == 0:
        return None
    low, high = own[known].argmin(), own[known].argmax()
    x, y = own[known], seen[known]
    slope = (y[high] - y[low]) / (x[high] - x[low])
    offset = y[low] - slope * x[low]
    if slope == 0 or not np.allclose(slope * x + offset, y, rtol=1e-4, atol=1e-6 * (1 + np.ptp(y))):
        return None
    return float(slope), float(offset)


def _splits(estimator: Any, width: int) -> Iterator[tuple[Array, Array]]:
    """Yield (feature index, threshold) of each tree in the parts of an estimator that take `width` columns."""
    for part in parts(estimator):
        if getattr(part, "n_features_in_", None) != width:
            continue
        for stage in getattr(part, "_predictors", ()):
            for tree in stage:
                inner = tree.nodes[tree.nodes["is_leaf"] == 0]
                yield inner["feature_idx"].astype(np.int64), inner["num_threshold"].astype(np.float64)
        members = getattr(part, "estimators_", None)
        trees = [part] if members is None else list(np.ravel(np.asarray(members, object)))
        for member in trees:
            tree = getattr(member, "tree_", None)
            if tree is not None:
                inner = tree.feature >= 0
                yield tree.feature[inner].astype(np.int64), tree.threshold[inner].astype(np.float64)
