"""Values of the gateway for language models: requests, replies, events of streams, usage and errors.

They are in nobody's wire format; `llm.protocol` reads and writes OpenAI's and Anthropic's. Fields of a caller or an
upstream that are not known here are kept as they came (`extra`), in the format of the value's `dialect`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

import msgspec

from mainspring.core.errors import MainspringError
from mainspring.security.model import Principal
from mainspring.vectors.model import Floats

Dialect = Literal["openai", "responses", "anthropic"]
OPENAI, RESPONSES, ANTHROPIC = "openai", "responses", "anthropic"

Role = Literal["system", "developer", "user", "assistant", "tool"]

# Why a choice ended. Others that an upstream gives are kept.
STOP, LENGTH, TOOL_CALLS, CONTENT_FILTER = "stop", "length", "tool_calls", "content_filter"

PROVENANCE = "provenance"  # field of a message or part, with which a caller lowers the trust in it
_NONE: Mapping[str, Any] = {}


class Text(msgspec.Struct, frozen=True, tag="text"):
    """Text within a message."""

    text: str
    extra: Mapping[str, Any] = _NONE


class Image(msgspec.Struct, frozen=True, tag="image"):
    """An image within a message: an address, or a `data:` URL with the image itself.

    Attributes:
        detail: "low", "high" or "auto", where the caller gave it.
    """

    url: str
    detail: str = ""
    extra: Mapping[str, Any] = _NONE


class Other(msgspec.Struct, frozen=True, tag="other"):
    """Content of another kind (audio, files, reasoning), as it came; only upstreams of its dialect get it."""

    kind: str
    raw: Mapping[str, Any]


Part = Text | Image | Other


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call of a tool that the model asks for.

    Attributes:
        arguments: JSON text as the model wrote it: it need not be valid.
    """

    id: str
    name: str
    arguments: str
    extra: Mapping[str, Any] = _NONE


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a conversation.

    Attributes:
        tool_calls: Of the assistant.
        tool_call_id: Of a tool's result: the call that it answers.
        failed: Of a tool's result: whether the call failed.
        name: Of the participant, where the caller gave it.
        reasoning: Text of the model's reasoning, where the upstream shows it.
        refusal: Text with which the model refused.
    """

    role: Role
    content: tuple[Part, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    failed: bool = False
    name: str = ""
    reasoning: str = ""
    refusal: str = ""
    extra: Mapping[str, Any] = _NONE

    @property
    def text(self) -> str:
        """All its text, without what is of another kind."""
        return "".join(part.text for part in self.content if isinstance(part, Text))


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool that the model may call.

    Attributes:
        kind: "function", or a kind of tool that the upstream itself has, which is in `extra` whole.
        parameters: JSON schema of its arguments.
        strict: Whether arguments have to follow the schema.
    """

    name: str
    kind: str = "function"
    description: str = ""
    parameters: Mapping[str, Any] | None = None
    strict: bool | None = None
    extra: Mapping[str, Any] = _NONE


class ToolChoice(msgspec.Struct, frozen=True):
    """Rule for the calls of tools: "auto", "none", "required" (at least one), or "function": the one of that name."""

    mode: Literal["auto", "none", "required", "function"]
    name: str = ""


class ResponseFormat(msgspec.Struct, frozen=True, kw_only=True):
    """Form of the answer: text, any JSON object, or JSON by a schema."""

    kind: Literal["text", "json_object", "json_schema"]
    name: str = ""
    schema: Mapping[str, Any] | None = None
    strict: bool | None = None
    description: str = ""


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """Parameters of sampling; `None` leaves them to the upstream.

    Attributes:
        max_tokens: Largest number of tokens to generate, those of reasoning included.
        stop: Texts at which generation ends.
        choices: Number of answers.
    """

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    choices: int = 1


_DEFAULT = Sampling()


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request for the next message of a conversation. Change one by `msgspec.structs.replace`.

    Attributes:
        model: Name of the declared language model; an upstream gets its own name for it.
        stream: Whether the caller wants the answer in events.
        wants_usage: Whether the caller of a stream wants its usage told at the end. Upstreams are always asked for it.
        extra: Fields that are not known here, in the format of `dialect`.
    """

    model: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    sampling: Sampling = _DEFAULT
    stream: bool = False
    wants_usage: bool = False
    dialect: Dialect = "openai"
    extra: Mapping[str, Any] = _NONE


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of a request, as the upstream counts them.

    Attributes:
        prompt: All tokens of the prompt.
        completion: All generated tokens.
        cached: Tokens of `prompt` that the upstream read from its cache.
        written: Tokens of `prompt` that it wrote to its cache, where it says so.
        reasoning: Tokens of `completion` that are reasoning.
    """

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    written: int = 0
    reasoning: int = 0

    @property
    def total(self) -> int:
        return self.prompt + self.completion


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One of the answers. `finish` is why it ended."""

    message: Message
    finish: str = STOP
    index: int = 0
    extra: Mapping[str, Any] = _NONE


class ChatReply(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer.

    Attributes:
        id: As the upstream gave it.
        model: As the upstream calls it.
        created: UTC epoch seconds, as the upstream gave it; 0 where it did not.
        usage: `None` where the upstream did not tell it.
        raw: The upstream's body; a caller of the same dialect gets these bytes. Empty where they no longer say what
            the other fields say: whoever replaces a field replaces `raw` by nothing.
        dialect: Format of `raw`.
    """

    id: str
    model: str
    choices: tuple[Choice, ...]
    created: int = 0
    usage: Usage | None = None
    raw: bytes = b""
    dialect: Dialect = "openai"
    extra: Mapping[str, Any] = _NONE


class ToolCallDelta(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a tool call: id and name come with its first piece, `arguments` are appended to those before."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a stream. Texts are appended to those of the events before.

    Attributes:
        index: Of the choice.
        finish: Why the choice ended; empty before that.
        usage: Of the whole request, in one of the last events; an event may hold nothing else.
        raw: The event as the upstream sent it, with `data:` and the empty line; a caller of the same dialect gets these
            bytes. Whoever replaces a field replaces `raw` by nothing.
        dialect: Format of `raw`.
        id, model, created: As in `ChatReply`.
    """

    index: int = 0
    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    finish: str = ""
    usage: Usage | None = None
    raw: bytes = b""
    dialect: Dialect = "openai"
    id: str = ""
    model: str = ""
    created: int = 0


Events = tuple[Event, ...]  # that arrived together: never empty


class EmbeddingsRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request for vectors of texts, or of texts as lists of tokens.

    Attributes:
        dimensions: Length of the vectors; `None`: the model's own.
        base64: Whether the caller wants vectors as base64 of float32.
    """

    model: str
    inputs: tuple[str, ...] | tuple[tuple[int, ...], ...]
    dimensions: int | None = None
    base64: bool = False
    extra: Mapping[str, Any] = _NONE


class EmbeddingsReply(msgspec.Struct, frozen=True, kw_only=True):
    """Vectors, shape (inputs, dimensions), in the order of the inputs. `raw` and `model` are as in `ChatReply`."""

    vectors: Floats
    model: str
    usage: Usage | None = None
    raw: bytes = b""


class Deadlines(msgspec.Struct, frozen=True, kw_only=True):
    """Longest times of one call of an upstream, microseconds.

    Attributes:
        connect: For a new connection, TLS included.
        first: From the request to the first token, or to the whole answer where it does not come in a stream.
        between: From one event of a stream to the next.
        whole: From the request to the end of the answer.
    """

    connect: int = 5_000_000
    first: int = 60_000_000
    between: int = 30_000_000
    whole: int = 600_000_000


_DEADLINES = Deadlines()


class Attempt(msgspec.Struct, kw_only=True):
    """A call of one upstream.

    Attributes:
        model: Name of the model there.
        sent: Whether the upstream may have begun.
        usage: What is charged for it, or before that what the upstream told.
        size: Bytes that it is known to have generated.
        micros: Cost in millionths of the currency.
    """

    upstream: str
    model: str
    sent: bool = True
    usage: Usage | None = None
    size: int = 0
    micros: int = 0


class Outcome(msgspec.Struct, kw_only=True):
    """Outcome of a request, noted on the event loop by those who answer it. It may change until the answer ends.

    Attributes:
        upstream: Name of the upstream that answered; empty where none did. `model`: what it calls the model.
        attempts: Calls of upstreams, hedges not counted.
        hedged: Whether a second upstream was asked while the first was slow.
        unheard: Calls of upstreams whose answers nobody waited for: hedges that another won, or of a caller who left.
        cached: "exact" or "semantic" where the answer is an earlier one.
        queued_us: Time for which the request waited for room at its upstream.
        first_us: Time from its arrival to the first token, or to the whole answer; 0 before.
        usage: What was charged.
        counted: Whether `usage` is our own count, because the upstream gave none that can be.
        micros: Cost in millionths of the currency.
        cut: Why a stream ended early: "budget", or "length": its upstream went on beyond the bound.
        fields: Header fields of the reply.
        guarded: Acts of the guard: (kind, treatment) -> how often.
    """

    upstream: str = ""
    model: str = ""
    attempts: int = 0
    hedged: bool = False
    unheard: list[Attempt] = msgspec.field(default_factory=list)
    cached: str = ""
    queued_us: int = 0
    first_us: int = 0
    usage: Usage | None = None
    counted: bool = False
    micros: int = 0
    cut: str = ""
    fields: tuple[tuple[str, str], ...] = ()
    guarded: dict[tuple[str, str], int] = {}

    def acted(self, kind: str, treatment: str) -> None:
        """Count an act of the guard."""
        self.guarded[kind, treatment] = self.guarded.get((kind, treatment), 0) + 1


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """Circumstances of a request.

    Attributes:
        id: The request's id in logs and traces.
        caller: Whose key it came with.
        begun: When it was read, monotonic, microseconds (`serving.plane.lane.monotonic_us`).
        headers: Headers of the caller that are passed on to upstreams of its dialect, lower case.
        may_hedge: Returns whether there is room in the caller's budgets to ask one more upstream; `None`: there is.
        attempt: The call of an upstream that this is.
        outcome: What becomes of it.
        alike: Whether a cache may give the answer to a question that is only alike.
    """

    id: str
    caller: Principal
    begun: int
    deadlines: Deadlines = _DEADLINES
    headers: tuple[tuple[str, str], ...] = ()
    may_hedge: Callable[[], Awaitable[bool]] | None = None
    attempt: Attempt | None = None
    outcome: Outcome = msgspec.field(default_factory=Outcome)
    alike: bool = True

    @property
    def owner(self) -> str:
        """Owner of the answers and calls of tools that the caller may see: its account, or its key without one."""
        return self.caller.account or self.caller.id


Kind = Literal["refused", "denied", "missing", "limited", "failed", "unreachable", "late", "broken"]


class UpstreamError(MainspringError):
    """An upstream did not answer, or not with an answer.

    Args:
        kind: "refused": the request is wrong, or too long for the model (4xx); "denied": our key is not accepted;
            "missing": it has no such model; "limited": it has no capacity for us now (429, 503, 529); "failed": it says
            that it failed (5xx), or what it says is no answer; "unreachable": no connection, so it has not seen the
            request; "late": a deadline passed; "broken": it ended before its answer did.
        upstream: Its name.
        status: Its status of HTTP; 0 where it gave none.
        retry_after_ms: Time after which it wants to be asked again, where it said so.
        code, type, param: Of its error body: for callers of "refused", who caused it.
        begun: Whether a part of the answer was given before.
    """

    def __init__(
        self,
        what: str,
        *,
        kind: Kind,
        upstream: str,
        status: int = 0,
        retry_after_ms: int | None = None,
        code: str = "",
        type: str = "",
        param: str = "",
        begun: bool = False,
    ) -> None:
        super().__init__(what, retryable=kind in ("limited", "failed", "unreachable", "late", "broken"))
        self.kind = kind
        self.upstream = upstream
        self.status = status
        self.retry_after_ms = retry_after_ms
        self.code, self.type, self.param = code, type, param
        self.begun = begun

    @property
    def unseen(self) -> bool:
        """True if the upstream certainly did nothing for the request, so that asking again doubles nothing."""
        return self.kind in ("refused", "denied", "missing", "limited", "unreachable")
