"""Declarations of evaluation sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any

from mainspring.core.definition_registry import declare, expect, expect_each
from mainspring.core.errors import Invalid
from mainspring.core.ids import check_id
from mainspring.core.schema import DType
from mainspring.data.model import Source

DOCUMENT, CHUNK = "document", "chunk"


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """Queries with what is relevant to them, as rows of a source: by these, retrieval is measured.

    A row says that one document, or chunk, is relevant to a query. Rows with the same text are one query. A query with
    a null in each row has no answer in the collection: to find nothing is right.

    Args:
        name: Name of the set, an id.
        source: Source with the rows. Each of its versions in the lake is a version of the set.
        query: Column with the query's text.
        relevant: Column with what is relevant, a text: the key of a document, or the id of a chunk; see `of`.
        of: "document" or "chunk". A document is found at the rank of its first chunk.
        grade: Numeric column with a grade for nDCG: the more relevant, the larger; 0 is not relevant. By default 1.
        answer: Column with the expected answer, a text or null. Of several rows' answers each is right.
        tags: Columns by whose values queries are grouped, so that each group is measured.
        tenant: Column that says whose documents a query searches; required where the collection has tenants. The same
            text of two tenants is two queries.

    Raises:
        Invalid: The name is not valid, or the source has no such column of that type.
    """

    name: str
    _: KW_ONLY
    source: Source
    query: str
    relevant: str
    of: str = DOCUMENT
    grade: str | None = None
    answer: str | None = None
    tags: str | Sequence[str] = ()
    tenant: str | None = None

    def __post_init__(self) -> None:
        check_id(self.name, "evaluation set")
        expect(self.source, Source, f"The source of evaluation set {self.name!r}", fix="give a ms.Source.")
        tags = (self.tags,) if isinstance(self.tags, str) else self.tags
        expect_each(tags, str, f"The tags of evaluation set {self.name!r}", fix='name columns: tags=["kind"].')
        object.__setattr__(self, "tags", tuple(tags))
        if self.of not in (DOCUMENT, CHUNK):
            raise Invalid(
                f"The relevant ids of evaluation set {self.name!r} are of {self.of!r}.",
                fix='write of="document" or of="chunk".',
            )
        for role, column in (
            ("query", self.query), ("relevant", self.relevant), ("answer", self.answer), ("tenant", self.tenant)
        ):  # fmt: skip
            self._check(role, column, (DType.String,))
        self._check("grade", self.grade, tuple(each for each in DType if each.numeric))
        for tag in tags:
            self._check("tag", tag, (DType.String, DType.Boolean, DType.Int32, DType.Int64))
        declare(self)

    def _check(self, role: str, column: str | None, kinds: Sequence[DType]) -> None:
        if column is None and role not in ("query", "relevant"):
            return
        found = self.source.schema.get(column) if isinstance(column, str) else None
        if found not in kinds:
            fitting = [name for name, kind in self.source.schema.items() if kind in kinds]
            raise Invalid(
                f"Source {self.source.name!r} has no column {column!r} for the {role} of evaluation set {self.name!r}.",
                fix=f"name one of these: {', '.join(fitting) or 'it has none of that type'}.",
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read, each once."""
        named = self.query, self.relevant, self.grade, self.answer, self.tenant, *self.tags
        return tuple(dict.fromkeys(each for each in named if each is not None))

    def document(self) -> dict[str, Any]:
        """Return the declaration as JSON, with its source by name."""
        return {**{each.name: getattr(self, each.name) for each in fields(self)}, "source": self.source.name}
