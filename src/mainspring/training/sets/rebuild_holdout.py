"""Reconstruction of a bundle's held-out rows with another model's features, from the same pinned data."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from mainspring.core.errors import Corrupt
from mainspring.features import definitions
from mainspring.features.offline import point_in_time
from mainspring.features.offline.observed import AT
from mainspring.features.offline.stored import Scan
from mainspring.registry.bundles import FEATURES, HOLDOUT
from mainspring.registry.model import Bundle, several_labels
from mainspring.training.label import Label
from mainspring.training.sets.labelled import labelled
from mainspring.training.sets.labels import LABEL


def held_out_again(bundle: Bundle, other: Bundle, labels: Sequence[Label], scan: Scan) -> pa.Table:
    """Return the held-out rows of `bundle`, in their order, with the features that `other` was trained on.

    Args:
        bundle: Provides the observations, the time range and the label maturity.
        other: Provides the features.
        labels: The declared labels of `bundle`'s model.
        scan: Reads tables as of the dataset commit that `bundle` was trained on.

    Raises:
        Corrupt: The reconstructed rows differ from the bundle's.
        NotFound: The data of that commit no longer exists.
    """
    held_out = pq.read_table(io.BytesIO(bundle.files[HOLDOUT]))
    _, observations = definitions.load(bundle.files[FEATURES])
    groups, _ = definitions.load(other.files[FEATURES])
    extra = bundle.manifest.extra
    since, until = extra["since"], extra["until"]
    columns = several_labels(bundle.manifest) or (extra.get("label", "").rpartition(".")[2],)
    declared = {each.column: each for each in labels}
    if declared.keys() >= set(columns):  # the declaration may since have more labels, or another order
        labels = [declared[name] for name in columns]
    settled = extra.get("labels", {labels[0].column: extra})
    labels = [
        Label(
            each,
            matures=settled.get(each.column, {}).get("matures_us"),
            otherwise=settled.get(each.column, {}).get("otherwise"),
            entity=each.entity,
        )
        for each in labels
    ]
    found, _ = labelled(observations, labels, scan, since=since, until=until)
    rows = found.slice(max(0, found.num_rows - held_out.num_rows))
    if any(not rows[name].combine_chunks().equals(held_out[name].combine_chunks()) for name in (AT, LABEL)):
        raise Corrupt(
            f"The held-out rows of {bundle.manifest.model} ({bundle.digest[:12]}) cannot be read again: dataset "
            f"commit {bundle.manifest.dataset_commit} returns different rows.",
            fix=f"train it again: mainspring train {bundle.manifest.model}.",
        )
    return point_in_time(rows, groups, scan, schema=observations.source.columns, at=AT)
