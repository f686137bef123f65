"""Guards around what answers for a language model: what comes in is checked and labelled, what goes out is treated.

A caller gets the known fields of an answer alone: text, reasoning and calls of tools, never what an upstream adds, such
as calls in an older form or log-probabilities, in which the same would go out unseen. In a stream a call is held back
until it is whole, and text until its last word is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field
from dataclasses import replace as replace_ruling

from msgspec.structs import replace

from mainspring.core.errors import MainspringError
from mainspring.llm.guarding.calls import MOST_BYTES, Permits, Proposed, Ruling, rule
from mainspring.llm.guarding.declaring import Guard
from mainspring.llm.guarding.fingerprints import Fingerprints
from mainspring.llm.guarding.requests import Begun, Requests
from mainspring.llm.guarding.scanner import MARK, Scanner, scan
from mainspring.llm.guarding.signing import Signer
from mainspring.llm.held_calls import HeldCall
from mainspring.llm.model import (
    CONTENT_FILTER,
    TOOL_CALLS,
    Call,
    ChatReply,
    ChatRequest,
    Choice,
    EmbeddingsReply,
    EmbeddingsRequest,
    Event,
    Events,
    Message,
    Text,
    ToolCall,
    ToolCallDelta,
)
from mainspring.llm.ports import Answering
from mainspring.security.model import Principal

_MOST_CALLS = 128  # of one answer
_NOTHING = Fingerprints(())
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Noticed:
    """An act of a guard: never a value of the conversation.

    Attributes:
        kind: "canary", "secret", "personal" or "link" of an answer; "hidden", "longest", "undeclared" or "unsigned" of
            a prompt; or the reason for which a call was refused.
        name: Of the shape, the secret or the tool.
        treatment: "refuse", "redact", "mark", "strip" or "taint".
    """

    model: str
    request: str
    caller: str
    kind: str
    name: str
    treatment: str


Notice = Callable[[Noticed], None]
Hold = Callable[[str, Ruling, Principal], HeldCall | None]  # name of the model, the call, who asked


def log(noticed: Noticed) -> None:
    """Write an act of a guard to the log."""
    _log.warning(
        "Guard of %s: %s %r: %s; request %s of %s.",
        noticed.model, noticed.kind, noticed.name[:64], noticed.treatment, noticed.request, noticed.caller,
    )  # fmt: skip


class Guarded:
    """An `Answering` behind a guard.

    Args:
        model: Name of the language model.
        key: Of the installation, for canaries.
        secrets: Tells those of the installation.
        permits: Whether policies permit a call of a tool.
        hold: Keeps a call that a person has to decide, or finds what was decided; `None`: nobody does. Called in a
            thread.
    """

    def __init__(
        self,
        inner: Answering,
        model: str,
        guard: Guard,
        *,
        key: bytes,
        permits: Permits,
        secrets: Callable[[], Fingerprints] = lambda: _NOTHING,
        hold: Hold | None = None,
        notice: Notice = log,
    ) -> None:
        self._inner = inner
        self._model = model
        self._guard = guard
        self._permits = permits
        self._hold = hold
        self._notice = notice
        self._signer = Signer(key, model)
        self._requests = Requests(model, guard, self._signer, self._note, key=key, secrets=secrets)

    async def chat(self, request: ChatRequest, call: Call) -> ChatReply:
        begun = self._requests.let_in(request, call)
        reply = await self._inner.chat(begun.request, call)
        choices = [await self._choice(begun, each) for each in reply.choices]
        return replace(reply, choices=tuple(choices), raw=b"", extra={})

    async def stream(self, request: ChatRequest, call: Call) -> AsyncGenerator[Events, None]:
        begun = self._requests.let_in(request, call)
        choices: dict[int, _Streamed] = {}
        events = self._inner.stream(begun.request, call)
        try:
            async for batch in events:
                out: list[Event] = []
                for event in batch:
                    if event.index not in choices:
                        choices[event.index] = _Streamed(Scanner(begun.rules), Scanner(begun.rules))
                    out += [each async for each in self._events(begun, choices[event.index], event)]
                if out:
                    yield tuple(out)
                if len(choices) >= request.sampling.choices and all(each.cut for each in choices.values()):
                    return  # nothing more will be passed on
        finally:
            await events.aclose()

    async def embed(self, request: EmbeddingsRequest, call: Call) -> EmbeddingsReply:
        return await self._inner.embed(request, call)

    async def _choice(self, begun: Begun, choice: Choice) -> Choice:
        message = choice.message
        calls = message.tool_calls[:_MOST_CALLS]
        passed = []
        for text in (message.text, message.reasoning, message.refusal):
            given, scanner = scan(begun.rules, text)
            self._tell(begun, scanner, 0)
            if scanner.refused is not None:
                content = (Text(_withheld(scanner)),)
                return Choice(
                    message=Message(role="assistant", content=content), finish=CONTENT_FILTER, index=choice.index
                )
            passed.append(given)
        rulings = await self._rule(begun, [Proposed(each.name, each.arguments) for each in calls])
        kept = tuple(
            ToolCall(id=self._signed(begun, each), name=each.name, arguments=each.arguments)
            for each, ruling in zip(calls, rulings, strict=True)
            if ruling.permitted
        )
        said = " ".join(filter(None, [passed[0], *(each.why for each in rulings)]))
        answer = Message(
            role="assistant",
            content=(Text(said),) if said else (),
            tool_calls=kept,
            reasoning=passed[1],
            refusal=passed[2],
        )
        return Choice(message=answer, finish=_finish(choice.finish, rulings), index=choice.index)

    async def _events(self, begun: Begun, choice: _Streamed, event: Event) -> AsyncIterator[Event]:
        bare = replace(event, text="", reasoning="", refusal="", tool_calls=(), finish="", usage=None, raw=b"")
        if not choice.cut:
            async for each in self._passed(begun, choice, event, bare):
                yield each
        if event.usage is not None:
            yield replace(bare, usage=event.usage)

    async def _passed(self, begun: Begun, choice: _Streamed, event: Event, bare: Event) -> AsyncIterator[Event]:
        choice.add(event.tool_calls)
        last = bool(event.finish)
        for scanner, name, text in (
            (choice.reasoning, "reasoning", event.reasoning),
            (choice.text, "text", event.text + event.refusal),
        ):
            seen = len(scanner.findings)
            given = scanner.feed(text) + (scanner.finish() if last else "")
            self._tell(begun, scanner, seen)
            if given:
                choice.said |= name == "text"
                yield replace(bare, **{name: given})
            if scanner.refused is not None:
                choice.cut = True
                yield choice.adding(bare, _withheld(scanner))
                yield replace(bare, finish=CONTENT_FILTER)
                return
        if last:
            choice.cut = True
            calls = list(choice.calls.values())
            rulings = await self._rule(begun, [Proposed(each.name, each.arguments) for each in calls])
            kept = [each for each, ruling in zip(calls, rulings, strict=True) if ruling.permitted]
            said = " ".join(each.why for each in rulings if each.why)
            if said:
                yield choice.adding(bare, said)
            if kept:
                deltas = tuple(
                    ToolCallDelta(index=place, id=self._signed(begun, each), name=each.name, arguments=each.arguments)
                    for place, each in enumerate(kept)
                )
                yield replace(bare, tool_calls=deltas)
            yield replace(bare, finish=_finish(event.finish, rulings))

    def _signed(self, begun: Begun, call: ToolCall | _Piece) -> str:
        return self._signer.sign(call.id, call.name, call.arguments, begun.call.owner)

    async def _rule(self, begun: Begun, proposed: list[Proposed]) -> list[Ruling]:
        def discloses(text: str) -> bool:
            found = scan(begun.rules, text)[1].findings
            return any(each.kind in ("canary", "secret") and begun.rules.treatment(each) != MARK for each in found)

        rulings = rule(self._guard, begun.conversation, proposed, permits=self._permits, discloses=discloses)
        rulings = [await self._asked(begun, each) if each.reason == "approval" else each for each in rulings]
        for each in rulings:
            if each.reason:
                self._note(begun.call, each.reason, each.call.name, "refuse")
            else:
                begun.call.outcome.acted("call", "permit")
        return rulings

    async def _asked(self, begun: Begun, ruling: Ruling) -> Ruling:
        """Return the decision on a call that needs a person's: of those that were made, or that it waits."""
        if self._hold is None:
            return ruling
        try:
            held = await asyncio.to_thread(self._hold, self._model, ruling, begun.call.caller)
        except MainspringError as error:
            _log.warning("Approvals cannot be looked up: %s", error)
            return replace_ruling(ruling, why="Approvals cannot be looked up now; ask again later.")
        name = repr(ruling.call.name[:64])
        if held is None:
            return replace_ruling(ruling, why=f"Too many calls wait for approval, so {name} is not called.")
        if held.status == "approved":
            return Ruling(ruling.call, digest=ruling.digest)
        if held.status == "denied":
            return replace_ruling(ruling, why=f"A person denied this call of {name}.")
        return replace_ruling(ruling, why=f"The call of {name} waits for a person's approval: {held.id}.")

    def _tell(self, begun: Begun, scanner: Scanner, seen: int) -> None:
        for found in scanner.findings[seen:]:
            self._note(begun.call, found.kind, found.name, begun.rules.treatment(found))

    def _note(self, call: Call, kind: str, name: str, treatment: str) -> None:
        call.outcome.acted(kind, treatment)
        self._notice(Noticed(self._model, call.id, call.caller.id, kind, name, treatment))


@dataclass(slots=True)
class _Piece:
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(slots=True)
class _Streamed:
    """One choice of a stream. `said`: some text of it was passed on; `cut`: nothing more of it is."""

    text: Scanner
    reasoning: Scanner
    calls: dict[int, _Piece] = field(default_factory=dict)
    said: bool = False
    cut: bool = False

    def adding(self, bare: Event, sentence: str) -> Event:
        return replace(bare, text=f" {sentence}" if self.said else sentence)

    def add(self, deltas: tuple[ToolCallDelta, ...]) -> None:
        for each in deltas:
            if each.index not in self.calls and len(self.calls) >= _MOST_CALLS:
                continue
            piece = self.calls.setdefault(each.index, _Piece())
            piece.id, piece.name = piece.id or each.id, piece.name or each.name
            if len(piece.arguments) <= MOST_BYTES:  # what is longer is refused
                piece.arguments += each.arguments


def _finish(given: str, rulings: list[Ruling]) -> str:
    if rulings and not any(each.permitted for each in rulings):
        return CONTENT_FILTER
    return TOOL_CALLS if rulings else given


def _withheld(scanner: Scanner) -> str:
    what = scanner.refused.kind if scanner.refused is not None else ""
    return f"The answer was withheld: it has something that must not be given out ({what})."
