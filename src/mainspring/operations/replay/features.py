"""Features that models saw, compared with the point-in-time read of the same keys and instants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mainspring.core.errors import MainspringError
from mainspring.features import definitions
from mainspring.features.equal import same
from mainspring.features.model import FeatureGroup, RequestFeatures, views_of
from mainspring.operations.replay.model import Compared, FeatureCheck
from mainspring.registry.bundles import FEATURES

if TYPE_CHECKING:
    from mainspring.core.schema import Schema
    from mainspring.features.offline.stored import Scan
    from mainspring.ledger.model import Prediction
    from mainspring.registry.model import Bundle


def check_features(predictions: Sequence[Prediction], bundle: Bundle, scan: Scan) -> list[FeatureCheck]:
    """Return the check of each prediction of one bundle, in their order, by one read.

    The definitions are those of the bundle, so a later change of the project's has no effect.

    Args:
        scan: Returns the version of a source's table to read.
    """
    if FEATURES not in bundle.files:
        return [FeatureCheck(why="The model takes tensors, which no feature view computes.")] * len(predictions)
    groups, observations = definitions.load(bundle.files[FEATURES])
    checks: dict[str, FeatureCheck] = {}
    readable: list[Prediction] = []
    for each in predictions:
        if why := _unreadable(each, groups):
            checks[each.id] = why
        else:
            readable.append(each)
    if readable:
        try:
            checks |= _compared(readable, groups, observations.source.columns, scan)
        except MainspringError as error:
            checks |= {each.id: FeatureCheck(why=error.what, fix=error.fix) for each in readable}
    return [checks[each.id] for each in predictions]


def stored(bundle: Bundle) -> bool:
    """Return whether a bundle's model takes stored features."""
    return FEATURES in bundle.files and bool(views_of(definitions.load(bundle.files[FEATURES])[0]))


def _unreadable(prediction: Prediction, groups: Sequence[FeatureGroup]) -> FeatureCheck | None:
    if not prediction.keys and not prediction.request and not prediction.personal:
        return FeatureCheck(why="The caller sent the features itself (full inputs), so no view was read.")
    needed = {key for view in views_of(groups) for key in view.entity.keys}
    for group in groups:
        if isinstance(group, RequestFeatures):
            needed.update(group.fields)
    hidden = sorted(needed & set(prediction.personal))
    if hidden:
        fix = "decrypt them with --reveal; the audit log records the access." if prediction.sealed else None
        return FeatureCheck(
            why=f"The features are read by {', '.join(hidden)}, {prediction.withheld} as it identifies a person.",
            fix=fix,
        )
    return None


def _compared(
    predictions: Sequence[Prediction], groups: Sequence[FeatureGroup], schema: Schema, scan: Scan
) -> dict[str, FeatureCheck]:
    import pyarrow as pa

    from mainspring.data.arrow import ARROW_TYPES
    from mainspring.features.offline import point_in_time

    asked: list[Mapping[str, Any]] = [{**each.keys, **each.request} for each in predictions]
    columns = {
        name: pa.array([row.get(name) for row in asked], _logged_type(dtype)).cast(ARROW_TYPES[dtype])
        for name, dtype in schema.items()
    }
    at = pa.array([each.at for each in predictions], pa.timestamp("us", tz="UTC"))
    read = point_in_time(pa.table({**columns, "_at": at}), groups, scan, schema=schema)
    names = [name for group in groups for name in group.columns if name in read.column_names]
    found = {name: read[name].to_pylist() for name in names}
    checks = {}
    for row, each in enumerate(predictions):
        present = [name for name in names if name in each.features]
        differing = {
            name: Compared(each.features[name], found[name][row])
            for name in present
            if not same(each.features[name], found[name][row])
        }
        statuses = {name: each.statuses[name] for name in differing if name in each.statuses}
        checks[each.id] = FeatureCheck(compared=len(present), differing=differing, statuses=statuses)
    return checks


def _logged_type(dtype: Any) -> Any:
    """Return the log's type of a column: instants are microseconds."""
    import pyarrow as pa

    from mainspring.data.arrow import ARROW_TYPES

    kind = ARROW_TYPES[dtype]
    return pa.int64() if pa.types.is_timestamp(kind) else kind
