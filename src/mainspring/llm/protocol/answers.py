"""Questions to chains of answers and their answers over HTTP: on a route of their own, and as chat completions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from mainspring.core.time import SECOND
from mainspring.llm.answers.declaring import Answers
from mainspring.llm.answers.feedback import FeedbackColumn
from mainspring.llm.answers.following import Steps
from mainspring.llm.answers.model import Citation, CitedAnswer, Passage, Question, Retrieved
from mainspring.llm.answers.speaking import Reranked, Rewritten, Said, Searched, Step
from mainspring.llm.model import ChatReply, ChatRequest, Choice, Event, Message, Text
from mainspring.llm.protocol import openai
from mainspring.llm.protocol.openai.replies import write_usage
from mainspring.llm.protocol.reading import Fields, InvalidField, read_bounded, split
from mainspring.security.quota import MILLIONTHS
from mainspring.serving.http.streams import framed

Keys = dict[str, str | int | float | bool]
_PIECE = 160  # characters of an answer in one event of a stream
_LONGEST_REASON = 2_000  # characters
_WEB = ("http", "https")


class _Said(msgspec.Struct, forbid_unknown_fields=True):
    role: Literal["user", "assistant"]
    content: str


class _Asked(msgspec.Struct):
    question: str
    conversation: list[_Said] = []
    filter: Fields | None = None
    tenant: str | None = None
    keys: Keys = {}
    session: str = ""
    stream: bool = False


class Rated(msgspec.Struct, forbid_unknown_fields=True):
    """A rating as a caller gives it.

    Attributes:
        column: Of the chain's feedback; it may be left out where there is one.
    """

    answer: str
    rating: bool | float | str
    column: str = ""
    reason: str = ""


class _Beside(msgspec.Struct, forbid_unknown_fields=True):
    """The field `mainspring` of a chat completion, which is not OpenAI's."""

    filter: Fields | None = None
    tenant: str | None = None
    keys: Keys = {}
    session: str = ""


@dataclass(frozen=True, slots=True)
class ReadQuestion:
    """A question as a caller sends it. The documents that it is about are the server's to decide.

    Attributes:
        question: Without condition and tenant.
        filter: Of the collection's fields, as `vectors.filtering` reads it; `None` for none.
        tenant: That which it names.
        events: Whether its answer is wanted in events.
    """

    question: Question
    filter: Fields | None
    tenant: str | None
    events: bool = False


def read_question(body: bytes | memoryview) -> ReadQuestion:
    """Return a question on the route of answers.

    Raises:
        InvalidField: It is none.
    """
    asked, more = split(read_bounded(body), _Asked)
    if more:
        name = min(more)
        raise InvalidField(f"{name[:80]}: there is no such field.", name[:80])
    before = tuple(Message(role=each.role, content=(Text(each.content),)) for each in asked.conversation)
    question = Question(asked.question, before, keys=asked.keys, session=asked.session)
    return ReadQuestion(question, asked.filter, asked.tenant, asked.stream)


def read_rating(body: bytes | memoryview, columns: Sequence[FeedbackColumn]) -> tuple[Rated, FeedbackColumn]:
    """Return a rating, and its column.

    Raises:
        InvalidField: It is none of these columns.
    """
    rated, _ = split(read_bounded(body), Rated)
    known = {each.column: each for each in columns}
    column = known.get(rated.column) if rated.column or len(known) != 1 else columns[0]
    if column is None:
        names = ", ".join(known) or "none: the chain declares no feedback"
        raise InvalidField(f"column: {rated.column[:80]!r} is no feedback of the chain; there is {names}.", "column")
    if len(rated.reason) > _LONGEST_REASON:
        raise InvalidField(f"reason: it has more than {_LONGEST_REASON:,} characters.", "reason")
    if rated.reason and not column.reason:
        raise InvalidField("reason: the chain takes none.", "reason")
    return rated, column


def read_chat(request: ChatRequest) -> ReadQuestion:
    """Return the question in a request for the next message of a conversation. Messages of the system and parameters
    of sampling are the chain's own, so a caller's do not count.

    Raises:
        InvalidField: Its last message is none of the user's, or it asks for what a chain does not do.
    """
    formed = request.response_format is not None and request.response_format.kind != "text"
    for field, given in (("tools", request.tools), ("response_format", formed)):
        if given:
            raise InvalidField(f"{field}: {request.model!r} is a chain of answers, which takes none.", field)
    if request.sampling.choices != 1:
        raise InvalidField(f"n: {request.model!r} is a chain of answers, which gives one.", "n")
    *before, last = request.messages
    if last.role != "user":
        raise InvalidField("messages: the last one is not the user's.", "messages")
    beside, _ = split(request.extra.get("mainspring") or {}, _Beside, "mainspring")
    said = tuple(
        Message(role=each.role, content=(Text(each.text),)) for each in before if each.role in ("user", "assistant")
    )
    question = Question(last.text, said, keys=beside.keys, session=beside.session)
    return ReadQuestion(question, beside.filter, beside.tenant)


def answer_document(answer: CitedAnswer, declared: Answers) -> dict[str, Any]:
    """Return an answer as callers get it. Its citations have the text and the document that they point to, unless a
    source marks those as personal."""
    hidden = _hidden(declared)
    return {
        "id": answer.id,
        "object": "answer",
        "answers": answer.answers,
        "version": answer.version,
        "created": answer.at // SECOND,
        "text": answer.text,
        "found": answer.found,
        "reason": answer.reason or None,
        "query": answer.query,
        "citations": [{**_citation(each, answer.passages[each.number - 1]), **hidden} for each in answer.citations],
        "unknown_citations": answer.unknown_citations,
        "retrieved": len(answer.passages) + answer.left_out,
        "index": answer.index,
        "model": answer.model,
        "finish_reason": answer.finish or None,
        "usage": write_usage(answer.usage),
        "cost": answer.cost_micros / MILLIONTHS,
        "latency_ms": round(answer.latency_us / 1000, 3),
    }


def _hidden(declared: Answers) -> Fields:
    """Return what a citation has in place of what identifies a person."""
    collection = declared.retriever.collection
    personal = {collection.key, collection.text}.intersection(collection.source.pii)
    hidden: Fields = {"chunk": None, "source": None} if collection.key in personal else {}
    return hidden | ({"text": None, "path": []} if collection.text in personal else {})


def _citation(citation: Citation, passage: Passage) -> Fields:
    return {
        "number": citation.number,
        "chunk": citation.chunk,
        "source": citation.document,
        "start": citation.start,
        "end": citation.end,
        "at": citation.at,
        "path": passage.path,
        "text": passage.text,
        "score": passage.score,
    }


def _annotations(document: Mapping[str, Any]) -> list[Fields]:
    """Return an answer's citations as OpenAI's annotations, one for each mark: of a URL where the document's key is
    one, else of a file. The chunk and its characters in the document are further fields.
    """
    found = []
    for citation in document["citations"]:
        source, path = citation["source"], citation["path"]
        where = {name: citation[name] for name in ("chunk", "start", "end")}
        for at in citation["at"] if source is not None else ():
            if urlsplit(source).scheme in _WEB:
                end = at + len(f"[{citation['number']}]")
                url = {"url": source, "title": path[-1] if path else source, "start_index": at, "end_index": end}
                found.append({"type": "url_citation", "url_citation": url, **where})
            else:
                file = {"file_id": source, "filename": source, "index": at}
                found.append({"type": "file_citation", "file_citation": file, **where})
    return found


def chat_reply(answer: CitedAnswer, document: Mapping[str, Any]) -> ChatReply:
    """Return an answer as a chat completion."""
    message = Message(
        role="assistant",
        content=(Text(answer.text),),
        extra={"annotations": _annotations(document)} if answer.found else {},
    )
    reply = ChatReply(
        id=answer.id, model=answer.answers, choices=(Choice(message=message),), created=answer.at // SECOND,
        usage=answer.usage,
    )  # fmt: skip
    body = msgspec.json.decode(openai.write_reply(reply))
    return msgspec.structs.replace(reply, raw=msgspec.json.encode({**body, "mainspring": document}))


def chat_events(steps: Steps, declared: Answers, at: int) -> Iterator[Event]:
    """Yield steps of an answer as events of a chat completion. Those before the text have the field `mainspring` in the
    place of one.

    Args:
        at: Time of the question, UTC epoch microseconds.
    """
    for step in steps:
        id = step.id if isinstance(step, CitedAnswer) else step.answer
        about: dict[str, Any] = {"id": id, "model": declared.name, "created": at // SECOND}
        if isinstance(step, CitedAnswer):
            document = answer_document(step, declared)
            delta = {"annotations": _annotations(document)} if step.found else {}
            yield Event(finish="stop", raw=_chunk(about, delta, "stop", document), **about)
            yield Event(usage=step.usage, **about)
        elif isinstance(step, Said):
            for text in pieces(step.text):
                yield Event(text=text, **about)
        else:
            name, told = _told(step, declared)
            begun: Fields = {"role": "assistant", "content": ""}
            yield Event(raw=_chunk(about, begun, None, {"step": name, **told}), **about)


def _chunk(about: Mapping[str, Any], delta: Fields, finish: str | None, beside: Mapping[str, Any]) -> bytes:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    chunk = {**about, "object": "chat.completion.chunk", "choices": choices, "mainspring": beside}
    return framed(msgspec.json.encode(chunk))


def pieces(text: str) -> Iterator[str]:
    """Yield a text in pieces, each cut after a space where it has one."""
    at = 0
    while at < len(text):
        end = at + _PIECE
        if end < len(text):
            end = text.rfind(" ", at + 1, end) + 1 or end
        yield text[at:end]
        at = end


def answer_events(steps: Steps, declared: Answers) -> Iterator[bytes]:
    """Yield steps of an answer as events of its own route; of the answer itself all of it."""
    for step in steps:
        if isinstance(step, CitedAnswer):
            yield framed(msgspec.json.encode(answer_document(step, declared)), "answer")
        elif isinstance(step, Said):
            for text in pieces(step.text):
                yield framed(msgspec.json.encode({"text": text}), "text")
        else:
            name, told = _told(step, declared)
            yield framed(msgspec.json.encode(told), name)


def _told(step: Step, declared: Answers) -> tuple[str, Fields]:
    """Return the name of a step before the text, and what a caller sees of it."""
    match step:
        case Rewritten():
            return "rewritten", {"id": step.answer, "query": step.query}
        case Searched():
            return "retrieved", {"id": step.answer, "query": step.query, **_passages(step.found, declared)}
        case Reranked():
            failed = bool(step.found.rerank_failure)
            return "reranked", {"id": step.answer, **_passages(step.found, declared), "failed": failed}
    raise TypeError(f"{step} is no step before the text.")


def _passages(found: Retrieved, declared: Answers) -> Fields:
    hidden = {name: value for name, value in _hidden(declared).items() if name in ("chunk", "source")}
    told = [{"chunk": each.id, "source": each.document, "score": each.score, **hidden} for each in found.passages]
    return {"passages": told, "index": found.version}
