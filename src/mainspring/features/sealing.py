"""Columns of the lake's tables that are encrypted because a source marks columns as personal."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from mainspring.core.expr.types import columns_of
from mainspring.data.model import DEAD_LETTERS_SUFFIX, QUARANTINE_SUFFIX, REASON, TILES_PREFIX, Source, source_of
from mainspring.features.layout import layout_of, slot
from mainspring.features.model import Entity, FeatureView
from mainspring.features.state.sql import column
from mainspring.features.tilelog.rows import all_parts, tiles_table


def personal_columns(
    table: str,
    names: Sequence[str],
    sources: Mapping[str, Source],
    entities: Iterable[Entity],
    views: Iterable[FeatureView],
) -> Collection[str]:
    """Return the columns of a table that are encrypted.

    Of a source those marked `pii`, but no keys of entities, times, nor what identifies a fact: rows are found by
    these. In its quarantine the reasons too, which may quote values, and of dead letters all that was received. Of
    tiles the parts that may reveal a marked value; of a view that is not declared any more, all parts.

    Args:
        names: The table's columns.
    """
    if table.startswith(TILES_PREFIX):
        view = next((each for each in views if tiles_table(slot(each)) == table), None)
        parts = [name for name in names if not name.startswith(("_", "k"))]
        return parts if view is None else _personal_parts(view)
    source = sources.get(source_of(table))
    if source is None:
        return ()
    keys = {key for entity in entities for key in entity.keys}
    marked = {*source.pii} - keys - {*source.id, *source.times, source.retracted}
    if not marked:
        return ()
    if table.endswith(DEAD_LETTERS_SUFFIX):
        return ("key", "value")
    return {*marked, REASON} if table.endswith(QUARANTINE_SUFFIX) else marked


def _personal_parts(view: FeatureView) -> frozenset[str]:
    """Return the columns of a view's tiles whose values may reveal a value of a column with a PII mark."""
    layout, marked = layout_of(view), set(view.source.pii)

    def is_personal(number: int, part: str) -> bool:
        measure = layout.measures[number]
        nodes = [measure.where] if part == "n" else [measure.of, measure.where]
        return any(columns_of(node) & marked for node in nodes if node is not None)

    return frozenset(column((number, part)) for number, part in all_parts(layout) if is_personal(number, part))
