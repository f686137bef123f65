"""Collections and chains of answers as `apply` stored them, made again without the project's modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import msgspec

from mainspring.core.definition_registry import collecting
from mainspring.core.errors import Invalid
from mainspring.core.schema import DType, Schema
from mainspring.data.model import Source
from mainspring.ledger.model import Log
from mainspring.llm.answers.declaring import Answers, Retriever, reranker_of
from mainspring.llm.answers.feedback import FeedbackColumn
from mainspring.llm.declaring import LanguageModel
from mainspring.llm.prompts import Prompt, Template, Variable
from mainspring.security.quota import Quota
from mainspring.vectors.chunking.model import Chunker
from mainspring.vectors.declaring import Collection, Encoder

T = TypeVar("T")
_EVIDENCE = ("evaluation", "judges", "gates", "feedback")  # by which versions are judged, not answers made


class _StoredSource(msgspec.Struct):
    name: str
    columns: dict[str, DType]
    event_time: str
    pii: tuple[str, ...] = ()


class _StoredPrompt(msgspec.Struct):
    name: str
    messages: tuple[Template, ...]
    variables: dict[str, Variable]
    description: str = ""


def stored_collection(content: str | bytes) -> Collection:
    """Return a collection of a source that has the collection's columns alone. Its evaluation is left out.

    Raises:
        Invalid: It was stored by another version of the package.
    """
    fields = _read(content)
    source = _converted(fields.get("source"), _StoredSource)
    schema: Schema = {name: dtype for name, dtype in source.columns.items() if name != source.event_time}
    with collecting():
        told = Source(source.name, schema=schema, event_time=source.event_time, pii=source.pii)
        return _made(
            Collection,
            {
                **fields,
                "source": told,
                "chunk": _converted(fields.get("chunk"), Chunker),
                "encoder": _converted(fields.get("encoder"), Encoder),
                "evaluation": None,
                "gates": (),
                "quotas": _converted(fields.get("quotas", ()), tuple[Quota, ...]),
            },
        )


def stored_chain(
    content: str | bytes,
    collections: Mapping[str, Collection],
    models: Mapping[str, LanguageModel],
) -> Answers:
    """Return a chain of answers.

    Raises:
        Invalid: It was stored by another version of the package, or what it names is not there.
    """
    fields = _read(content)
    searching = _converted(fields.get("retriever"), dict[str, Any])
    model, rewrite = fields.get("model"), fields.get("rewrite", False)
    with collecting():
        collection = _named(collections, searching.get("collection"), "collection")
        return _made(
            Answers,
            {
                **{name: value for name, value in fields.items() if name not in _EVIDENCE},
                "retriever": _made(_retriever, {**searching, "collection": collection}),
                "model": None if model is None else _named(models, model, "language model"),
                "prompt": _prompt(fields.get("prompt")),
                "rewrite": rewrite if isinstance(rewrite, bool) else _prompt(rewrite),
                "log": _converted(fields.get("log"), Log),
                "quotas": _converted(fields.get("quotas", ()), tuple[Quota, ...]),
            },
        )


def feedback_of(content: str | bytes) -> tuple[FeedbackColumn, ...]:
    """Return the columns of feedback of a stored chain; none of one that another version of the package stored."""
    with suppress(Invalid):
        return _converted(_read(content).get("feedback", ()), tuple[FeedbackColumn, ...])
    return ()


def _prompt(given: Any) -> Prompt:
    stored = _converted(given, _StoredPrompt)
    template = [(each.role, each.text) for each in stored.messages]
    return Prompt(stored.name, template, variables=stored.variables, description=stored.description)


def _retriever(rerank: Any = None, **fields: Any) -> Retriever:
    return Retriever(**fields, rerank=reranker_of(rerank))


def _made(kind: Callable[..., T], fields: Mapping[str, Any]) -> T:
    try:
        return kind(**fields)
    except TypeError as error:  # a field of another version
        raise Invalid(f"It was applied by another version: {error}.", fix="run `mainspring apply`.") from error


def _read(content: str | bytes) -> dict[str, Any]:
    try:
        return _converted(msgspec.json.decode(content), dict[str, Any])
    except msgspec.DecodeError as error:
        raise Invalid(f"It was applied by another version: {error}.", fix="run `mainspring apply`.") from error


def _converted(given: Any, kind: type[T]) -> T:
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise Invalid(f"It was applied by another version: {error}.", fix="run `mainspring apply`.") from error


def _named(known: Mapping[str, T], name: Any, what: str) -> T:
    if name not in known:
        raise Invalid(f"It needs the {what} {name!r}, which is not there.", fix="run `mainspring apply`.")
    return known[name]
