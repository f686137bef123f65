"""Comparison of a candidate with the current champion, on held-out rows that neither was trained on.

A champion may have been trained on later data than the candidate. Everything before its own held-out rows may be part
of its training data, so the comparison uses the candidate's held-out rows from that time on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from io import BytesIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mainspring.core.errors import Invalid
from mainspring.core.time import format_instant, from_datetime
from mainspring.delivery.gates import Comparison
from mainspring.delivery.held_out import read_held_out, score_held_out
from mainspring.features.offline.observed import AT
from mainspring.registry.bundles import HOLDOUT
from mainspring.registry.model import Bundle
from mainspring.stats.metrics import Metric, MetricFailed, UnknownClasses
from mainspring.stats.thresholds import Costs

FEWEST_ROWS = 30  # minimum number of held-out rows unseen by the champion

# Rebuilds missing inputs: (the champion's bundle, the candidate's held-out rows) -> the same rows, in the same order,
# with the champion's inputs as columns.
Rebuild = Callable[[Bundle, pa.Table], pa.Table]


def compare(
    candidate: Bundle,
    champion: Bundle,
    version: str,
    rebuild: Rebuild | None = None,
    *,
    more: Sequence[Metric] = (),
    threshold: Costs | None = None,
) -> Comparison:
    """Return both bundles' metrics on the candidate's held-out rows unseen by the champion, or the reason for none.

    Args:
        version: The champion's version.
        rebuild: Called if the held-out rows lack inputs of the champion.
        more: The model's metrics in addition to the task's.
        threshold: The model's costs; each bundle decides by its own threshold, or by 0.5.

    Raises:
        Invalid: `rebuild` returned rows that do not match.
    """
    if candidate.manifest.task != champion.manifest.task:
        return _incomparable(
            version, f"champion {version} has the task {champion.manifest.task!r}, not {candidate.manifest.task!r}."
        )
    if candidate.manifest.task == "regression" and set(candidate.manifest.outputs) != set(champion.manifest.outputs):
        answers = [", ".join(each.manifest.outputs) for each in (champion, candidate)]
        return _incomparable(version, f"champion {version} returns {answers[0]}, not {answers[1]}.")
    if HOLDOUT not in candidate.files:
        return _incomparable(version, "the candidate's bundle contains no held-out rows.")
    held_out = read_held_out(candidate)
    seen_until = _seen_until(champion)
    if seen_until is None:
        return _incomparable(
            version,
            f"the training period of champion {version} is unknown: its bundle contains no held-out rows with "
            f"times. Train {champion.manifest.model} again and promote that version by gates without `beats`.",
        )
    unseen = pc.greater_equal(held_out[AT], pa.scalar(seen_until, held_out.schema.field(AT).type))
    count = held_out.filter(unseen).num_rows
    if count < min(FEWEST_ROWS, held_out.num_rows):
        return _incomparable(version, _too_few(version, seen_until, held_out, count))
    rows = held_out
    missing = _missing(champion, held_out)
    if missing:
        if rebuild is None:
            return _incomparable(
                version,
                f"champion {version} needs {', '.join(missing)}, which the candidate's held-out rows lack and "
                "which cannot be rebuilt.",
            )
        rows = rebuild(champion, held_out)
        _check_rebuilt(champion, held_out, rows)
    try:
        found = score_held_out(
            candidate,
            table=held_out.filter(unseen),
            champion=(champion, rows.filter(unseen)),
            more=more,
            threshold=threshold,
        )
        ours, theirs = (found.metrics(side) for side in (found.candidate, found.other) if side is not None)
    except UnknownClasses as error:
        return _incomparable(
            version, f"champion {version} does not know the held-out classes {', '.join(error.names)}."
        )
    except MetricFailed as error:
        return _incomparable(version, str(error))
    aside = "" if count == held_out.num_rows else _told(version, seen_until, held_out, count)
    return Comparison(version, ours, theirs, aside=aside, rows=found)


def _seen_until(champion: Bundle) -> datetime | None:
    """Return the time of the bundle's first held-out row; its training data lies before it."""
    if HOLDOUT not in champion.files:
        return None
    schema = pq.read_schema(BytesIO(champion.files[HOLDOUT]))
    if AT not in schema.names:
        return None
    first: datetime | None = pc.min(pq.read_table(BytesIO(champion.files[HOLDOUT]), columns=[AT])[AT]).as_py()
    return first


def _told(version: str, seen_until: datetime, held_out: pa.Table, count: int) -> str:
    instant = format_instant(from_datetime(seen_until))
    rows = f"{count:,} of the {held_out.num_rows:,} held-out rows"
    return f"on {rows}: champion {version} was trained on data until {instant}"


def _too_few(version: str, seen_until: datetime, held_out: pa.Table, count: int) -> str:
    last = format_instant(from_datetime(pc.max(held_out[AT]).as_py()))
    return (
        f"only {_told(version, seen_until, held_out, count)}, and the last held-out row is of {last}; at least "
        f"{FEWEST_ROWS} rows that the champion was not trained on are needed. Train on newer data (a later "
        "--until), or roll the champion back first."
    )


def _missing(bundle: Bundle, rows: pa.Table) -> list[str]:
    return [each.name for each in bundle.manifest.inputs if each.name not in rows.column_names]


def _check_rebuilt(champion: Bundle, held_out: pa.Table, rebuilt: pa.Table) -> None:
    if rebuilt.num_rows != held_out.num_rows or _missing(champion, rebuilt):
        raise Invalid(
            f"The rebuilt inputs of bundle {champion.digest[:12]} have {rebuilt.num_rows} rows and lack "
            f"{_missing(champion, rebuilt)}; {held_out.num_rows} rows with all inputs are needed."
        )


def _incomparable(version: str, note: str) -> Comparison:
    return Comparison(version, {}, {}, note)
