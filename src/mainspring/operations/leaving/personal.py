"""Names of a project that identify a person, by the marks of its sources: of tables, views, predictions and bundles."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from typing import NamedTuple

from mainspring.core.errors import MainspringError
from mainspring.data.model import (
    BATCH,
    CHUNKS_PREFIX,
    DEAD_LETTERS_SUFFIX,
    EVALUATIONS_PREFIX,
    QUARANTINE_SUFFIX,
    REASON,
    SEQUENCE,
    SUPERSEDED_AT,
    SUPERSEDED_BY,
    VISIBLE_AT,
    source_of,
)
from mainspring.features.definitions import load
from mainspring.features.describe.personal import personal_columns, personal_names
from mainspring.features.model import FeatureView, views_of
from mainspring.ledger.model import PREDICTIONS
from mainspring.project import Project
from mainspring.registry.bundles import FEATURES

_OURS = frozenset({VISIBLE_AT, SEQUENCE, BATCH, SUPERSEDED_AT, SUPERSEDED_BY})


class Masked(NamedTuple):
    """Columns of a table whose values are left out, or the reason for leaving out the table."""

    columns: frozenset[str] = frozenset()
    instead: str = ""


class Personal:
    """Marks of a project's definitions.

    Attributes:
        names: Names by which a prediction has values of marked columns: keys, fields, and features by full name.
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        found = project.definitions
        self._sources = dict(found.sources)
        self._collections = dict(found.collections)
        views = [*found.views.values(), *(view for model in found.models.values() for view in views_of(model.features))]
        self._sources.update((view.source.name, view.source) for view in views)
        self._keys = {key for view in views for key in view.entity.keys if key in view.source.pii}
        marked = {column for source in self._sources.values() for column in source.pii}
        features = {f"{view.name}.{each}" for view in views for each in view.names if personal_columns(view, each)}
        computed = {
            name
            for model in found.models.values()
            for name in personal_names([*model.features, *model.baseline], model.observations)
        }
        self.names = frozenset(marked | features | computed)
        self.of_bundle = lru_cache(maxsize=1024)(self._of_bundle)

    def of_table(self, table: str, columns: Collection[str]) -> Masked:
        """Return what is left out of a table of the lake.

        Args:
            columns: The table's columns.
        """
        if table.startswith(EVALUATIONS_PREFIX):
            return Masked()
        if table.startswith(f"{PREDICTIONS}__"):
            return Masked(instead="measures may quote values that are marked with pii") if self.names else Masked()
        if table.startswith(CHUNKS_PREFIX):
            declared = self._collections.get(table.removeprefix(CHUNKS_PREFIX))
            if declared is None:
                return Masked(instead="no declared collection says what of it is personal")
            return Masked(instead="texts of a source that marks columns with pii") if declared.source.pii else Masked()
        source = self._sources.get(source_of(table))
        if source is None:
            return Masked(instead="no declared source says what of it is personal")
        marked = ({*source.pii} | self._keys) & {*columns} - _OURS
        if not marked:
            return Masked()
        if table.endswith(DEAD_LETTERS_SUFFIX):
            return Masked(frozenset({"key", "value"}))
        return Masked(frozenset({*marked, REASON} if table.endswith(QUARANTINE_SUFFIX) else marked))

    def of_view(self, view: FeatureView) -> frozenset[str]:
        """Return the keys of a view, and its features by full name, whose values are left out."""
        keys = {key for key in view.entity.keys if key in self._keys or key in view.source.pii}
        return frozenset(keys | {f"{view.name}.{each}" for each in view.names if personal_columns(view, each)})

    def _of_bundle(self, digest: str) -> frozenset[str] | None:
        """Return the personal names of a bundle's features as it was trained; `None` if it cannot be read any more."""
        try:
            content = self._project.bundles.load(digest).files.get(FEATURES)
        except MainspringError:
            return None
        return frozenset() if content is None else personal_names(*load(content))
