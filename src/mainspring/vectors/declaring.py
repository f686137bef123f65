"""Encoders, rerankers and collections, as projects declare them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import msgspec

from mainspring.core.definition_registry import declare, expect, expect_each, stored_fields
from mainspring.core.errors import Invalid
from mainspring.core.ids import LONGEST, check_id
from mainspring.core.schema import DType, Schema
from mainspring.core.time import MINUTE, SECOND, parse_duration
from mainspring.data.model import Source
from mainspring.security.quota import Quota, check_requests
from mainspring.vectors.chunking.model import Chunker
from mainspring.vectors.evaluation.declaring import EvaluationSet
from mainspring.vectors.model import METRICS, MOST_DIMENSIONS, Metric, Mode

# Fields of an index that say which chunk an entry is; `FIELD_PREFIX` begins none of a source's columns.
FIELD_PREFIX = "chunk_"
DOCUMENT, NUMBER, START, END, PAGE, PATH, TEXT = (
    FIELD_PREFIX + name for name in ("document", "number", "start", "end", "page", "path", "text")
)
_SEPARATOR = "\x1f"  # of the headings in a chunk's path
CHUNK_FIELDS: Schema = {
    DOCUMENT: DType.String,
    NUMBER: DType.Int32,
    START: DType.Int64,
    END: DType.Int64,
    PAGE: DType.Int32,
    PATH: DType.String,
    TEXT: DType.String,
}
# Part of an index's name: to be raised when the same collection has other entries.
_LAYOUT = 2
_TIMEOUT = "3s"  # of an encoder
_DIGITS = 12  # of a digest, at the end of an index's name


def path_text(path: Sequence[str]) -> str:
    """Return headings as an index has them."""
    return _SEPARATOR.join(path)


def path_of(text: str) -> tuple[str, ...]:
    """Return the headings of an index."""
    return tuple(text.split(_SEPARATOR)) if text else ()


class _TextModel:
    """A model of texts: registered, or behind a service that the profile names."""

    name: str
    model: str
    service: str
    timeout: str | int
    description: str

    @property
    def reference(self) -> str:
        """Model that it names."""
        return self.model or self.name

    @property
    def within_s(self) -> float:
        """Its timeout in seconds."""
        return parse_duration(self.timeout) / SECOND

    def _check(self, kind: str) -> None:
        check_id(self.name, kind)
        _check_timeout(f"{kind.capitalize()} {self.name!r}", self.timeout)
        for value in (self.model, self.service, self.description):
            expect(value, str, f"A text of {kind} {self.name!r}", fix="write texts.")


@dataclass(frozen=True, eq=False)
class Encoder(_TextModel):
    """An encoder of texts: a registered model, or a service that the profile names.

    Args:
        name: Name of the encoder, an id.
        model: The registered encoder, as `NAME`, `NAME:VERSION` or `NAME@ALIAS`; by default the newest version of the
            encoder's own name. Of a service, the model's name there.
        service: Service of the profile's settings that serves OpenAI's `/v1/embeddings`; empty for a registered model.
        dimension: Length of the vectors; a service needs it.
        most_tokens: Tokens of a text that a service takes.
        timeout: Time that a service has for the connection, and again for the vectors of a query. One that lets it pass
            again and again is not asked for a while. Builds wait longer.

    Raises:
        Invalid: A value is not possible, or a service lacks its dimension.
    """

    name: str
    _: KW_ONLY
    model: str = ""
    service: str = ""
    dimension: int | None = None
    most_tokens: int | None = None
    timeout: str | int = _TIMEOUT
    description: str = ""

    def __post_init__(self) -> None:
        self._check("encoder")
        for number in (self.dimension, self.most_tokens):
            expect(number, (int, type(None)), f"A number of encoder {self.name!r}", fix="write whole numbers.")
        if self.service and self.dimension is None:
            raise Invalid(f"Encoder {self.name!r} of a service has no dimension.", fix="write dimension=1536.")
        if self.dimension is not None and not 1 <= self.dimension <= MOST_DIMENSIONS:
            raise Invalid(f"Encoder {self.name!r} has {self.dimension} dimensions.", fix=f"1 to {MOST_DIMENSIONS}.")
        declare(self)

    def stored(self) -> dict[str, Any]:
        """Return the declaration as a collection stores it."""
        return {name: value for name, value in stored_fields(self).items() if (name, value) != ("timeout", _TIMEOUT)}


@dataclass(frozen=True, eq=False)
class Reranker(_TextModel):
    """A cross-encoder, which reads a query and a text together: a registered model, or a service of the profile.

    Args:
        name: Name of the reranker, an id.
        model: The registered cross-encoder, as `NAME`, `NAME:VERSION` or `NAME@ALIAS`; by default the newest version of
            the reranker's own name. Of a service, the model's name there.
        service: Service of the profile's settings that serves `/rerank`; empty for a registered model.
        timeout: Time for all texts of a query; after it, these stay in the order in which they were found.

    Raises:
        Invalid: A value is not possible.
    """

    name: str
    _: KW_ONLY
    model: str = ""
    service: str = ""
    timeout: str | int = "2s"
    description: str = ""

    def __post_init__(self) -> None:
        self._check("reranker")
        declare(self)

    def document(self) -> dict[str, str | int]:
        """Return the declaration as it is stored and compared: enough to declare it again."""
        return {"name": self.name, "model": self.reference, "service": self.service, "timeout": self.timeout}


@dataclass(frozen=True, eq=False)
class Collection:
    """Documents of a source, cut into chunks that are found by their meaning.

    Args:
        name: Name of the collection, an id.
        source: Source whose rows are the documents; of rows with one key the newest counts.
        text: Column with a document's text.
        key: Column that identifies a document.
        chunk: How documents are cut.
        encoder: Encoder of the chunks.
        fields: Columns by which searches may filter.
        tenant: Column of text that says whose a document is: each search is of one tenant's.
        metric: Similarity of vectors.
        words: Whether chunks are found by their words as well; searches are by both then, unless they say otherwise.
        evaluation: Queries by which a new index is measured.
        gates: Conditions that a new index has to meet before searches use it: `ms.gates.at_least`, `at_most` and
            `beats` on metrics such as "recall@10". An index that is brought up to date in place is not asked.
        quotas: Limits of callers' searches over HTTP: of requests.

    Raises:
        Invalid: A column does not exist, or is of a type that its purpose does not allow; or there are gates without an
            evaluation.
    """

    name: str
    _: KW_ONLY
    source: Source
    text: str
    key: str
    chunk: Chunker
    encoder: Encoder
    fields: Sequence[str] = ()
    tenant: str | None = None
    metric: Metric = "cosine"
    words: bool = False
    evaluation: EvaluationSet | None = None
    gates: Sequence[Any] = ()
    description: str = ""
    owner: str = ""
    quotas: Sequence[Quota] = ()

    def __post_init__(self) -> None:
        check_id(self.name, "collection", longest=LONGEST - len("-") - _DIGITS)
        what = f"collection {self.name!r}"
        object.__setattr__(self, "quotas", check_requests(self.quotas, what))
        expect(self.source, Source, f"The source of {what}", fix="give an ms.Source.")
        expect(self.chunk, Chunker, f"The chunker of {what}", fix="write chunk=ms.chunks.markdown(tokens=256).")
        expect(self.encoder, Encoder, f"The encoder of {what}", fix="give an ms.Encoder.")
        if self.evaluation is not None:
            fix = "give an ms.EvaluationSet."
            expect(self.evaluation, EvaluationSet, f"The evaluation of {what}", fix=fix)
        expect(self.gates, (list, tuple), f"The gates of {what}", fix='write [ms.gates.at_least("recall@10", 0.9)].')
        object.__setattr__(self, "gates", tuple(self.gates))
        if self.gates and self.evaluation is None:
            raise Invalid(f"Collection {self.name!r} has gates and no evaluation.", fix="write evaluation=QUESTIONS.")
        object.__setattr__(self, "fields", (self.fields,) if isinstance(self.fields, str) else tuple(self.fields))
        expect_each(self.fields, str, f"The fields of {what}", fix='name columns: fields=["section"].')
        named = [self.text, self.key, *self.fields, *([] if self.tenant is None else [self.tenant])]
        unknown = [name for name in named if name not in self.source.columns]
        if unknown:
            raise Invalid(
                f"Collection {self.name!r} names {unknown[0]!r}, which is no column of source {self.source.name!r}.",
                fix=f"its columns are {sorted(self.source.columns)}.",
            )
        texts = {"text": self.text, "tenant": self.tenant}
        for role, column in texts.items():
            if column is not None and self.source.columns[column] is not DType.String:
                raise Invalid(f"The {role} {column!r} of {what} is no text.", fix="name a column of ms.String.")
        if self.source.columns[self.key] not in (DType.String, DType.Int64, DType.Int32):
            raise Invalid(f"The key {self.key!r} of {what} cannot identify a document.", fix="use text or integers.")
        clash = [name for name in named if name.startswith(FIELD_PREFIX)]
        if clash or self.text in self.fields or len(set(self.fields)) < len(self.fields):
            raise Invalid(
                f"The fields {list(self.fields)} of {what} are not possible.",
                fix=f"name each once, not the text, and none that begins with {FIELD_PREFIX!r}.",
            )
        if self.metric not in METRICS:
            raise Invalid(f"The metric of {what} is {self.metric!r}.", fix=f"write one of {', '.join(METRICS)}.")
        declare(self)

    def document(self) -> dict[str, Any]:
        """Return the declaration as it is stored and compared."""
        rare = {
            "fields": list(self.fields),
            "tenant": self.tenant,
            "words": self.words,
            "evaluation": self.evaluation and self.evaluation.name,
            "gates": [str(gate) for gate in self.gates],
        }
        return {
            "name": self.name,
            "source": self.source.name,
            "text": self.text,
            "key": self.key,
            "chunk": str(self.chunk),
            "encoder": self.encoder.name,
            **{name: value for name, value in rare.items() if value},
            "metric": self.metric,
            "owner": self.owner,
            "description": self.description,
        }

    def stored(self) -> dict[str, Any]:
        """Return the declaration as `apply` stores it: enough to search in it without the project's modules."""
        names = dict.fromkeys((self.text, *self.filters))
        columns = {name: self.source.columns[name] for name in names}
        personal = [name for name in names if name in self.source.pii]
        source = {"name": self.source.name, "columns": columns, "event_time": self.source.event_time, "pii": personal}
        stored = stored_fields(
            self,
            source=source,
            encoder=self.encoder.stored(),
            evaluation=self.evaluation and self.evaluation.name,
            gates=[str(gate) for gate in self.gates],
        )
        return stored if self.quotas else {name: value for name, value in stored.items() if name != "quotas"}

    @property
    def mode(self) -> Mode:
        """How it is searched where nothing else is said: by all that it has."""
        return "hybrid" if self.words else "vectors"

    @property
    def filters(self) -> Schema:
        """Columns that an index has beside the chunk: those that filters may name, the key, and the tenant's."""
        names = dict.fromkeys((self.key, *self.fields, *([] if self.tenant is None else [self.tenant])))
        return {name: self.source.columns[name] for name in names}

    @property
    def index_fields(self) -> Schema:
        """Fields of the entries of an index."""
        return {**CHUNK_FIELDS, **self.filters}

    def recipe(self, encoder_digest: str) -> str:
        """Return the digest of all that decides what a document's chunks and vectors are, apart from the document."""
        return _digest([self.chunk.digest, encoder_digest])

    def index_name(self, encoder_digest: str, dimension: int) -> str:
        """Return the name of the index that is built with an encoder: one of its own for what cannot share one."""
        fields = {name: dtype.value for name, dtype in self.index_fields.items()}
        columns = [self.source.name, self.text, self.key, self.tenant]
        made = _digest([_LAYOUT, self.recipe(encoder_digest), dimension, self.metric, fields, columns])
        return f"{self.name}-{made[:_DIGITS]}"


def _check_timeout(what: str, timeout: str | int) -> None:
    if not 0 < parse_duration(timeout) <= MINUTE:
        raise Invalid(f"{what} has the timeout {timeout!r}.", fix='write "2s", up to "1m".')


def _digest(value: object) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()[:32]
