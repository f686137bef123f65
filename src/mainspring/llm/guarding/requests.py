"""Requests to a language model behind a guard: checked, cleaned, labelled by where each part of them comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import msgspec
from msgspec.structs import replace

from mainspring.core.errors import Invalid
from mainspring.llm.guarding.calls import Conversation, History, Proposed
from mainspring.llm.guarding.characters import hidden, without_hidden
from mainspring.llm.guarding.declaring import Guard
from mainspring.llm.guarding.fingerprints import AFTER, BEFORE, Fingerprints, canary
from mainspring.llm.guarding.patterns import shapes
from mainspring.llm.guarding.provenance import Label, labelled, lowered
from mainspring.llm.guarding.scanner import MARK, REDACT, Rules
from mainspring.llm.guarding.signing import Signer
from mainspring.llm.model import PROVENANCE, Call, ChatRequest, Message, Other, Part, Text, ToolCall

# Fields of a request that are not known to the gateway, and give an upstream neither tools nor content.
_PASSED = frozenset(
    {"chat_template_kwargs", "metadata", "min_p", "prompt_cache_key", "reasoning_effort", "repetition_penalty",
     "safety_identifier", "service_tier", "thinking", "top_k", "user", "verbosity"}
)  # fmt: skip
_OWN = frozenset({"reasoning", "redacted_thinking", "thinking"})  # kinds of content that a model wrote
_PROMPTS = 256  # whose canaries are remembered
Note = Callable[[Call, str, str, str], None]  # gets kind, name and treatment, as `Noticed` has them


@dataclass(frozen=True, slots=True)
class Begun:
    """A request that a guard let in."""

    request: ChatRequest
    conversation: Conversation
    rules: Rules
    call: Call


class Requests:
    """Requests that a guard lets in.

    Args:
        key: Of the installation, for canaries.
        secrets: Tells those of the installation.
        note: Is told each act of the guard.
    """

    def __init__(
        self, model: str, guard: Guard, signer: Signer, note: Note, *, key: bytes, secrets: Callable[[], Fingerprints]
    ) -> None:
        self._model, self._guard, self._signer, self._note = model, guard, signer, note
        self._key, self._secrets = key, secrets
        self._shapes = shapes(guard.personal, secrets=guard.secrets is not None, domains=guard.links)
        self._treatments = {
            **{f"personal/{name}": treatment for name, treatment in guard.personal.items()},
            "secret": guard.secrets or MARK,
            "canary": guard.canary or MARK,
            "link": REDACT,
        }
        self._canary_of = lru_cache(_PROMPTS)(self._make_canary)

    def let_in(self, request: ChatRequest, call: Call) -> Begun:
        """Return a request as the model gets it, and what its answer is ruled by.

        Raises:
            Invalid: The guard refuses it.
        """
        for tool in request.tools:
            if tool.kind != "function" or self._guard.tool(tool.name) is None:
                self._note(call, "undeclared", tool.name, "refuse")
                raise Invalid(
                    f"The tool {tool.name[:64]!r} is not declared for {self._model!r}.",
                    fix="declare it in the guard: ms.Tool(...). Tools that an upstream itself runs cannot be.",
                )
        length = sum(_length(message) for message in request.messages)
        if length > self._guard.longest:
            self._note(call, "longest", "", "refuse")
            raise Invalid(
                f"The prompt has {length} characters; {self._model!r} takes {self._guard.longest}.",
                fix="send a shorter conversation.",
            )
        made = self._made(request.messages, call)
        messages = [self._cleaned(place, each, call) for place, each in enumerate(request.messages)]
        spans = labelled(self._labels(messages, made))
        prints = {"secret": self._secrets()} if self._guard.secrets is not None else {}
        messages = [_without_labels(_with_ids(each, made)) for each in messages]
        for place, message in enumerate(messages):
            if self._guard.canary is not None and message.role in ("system", "developer") and message.text:
                mark, prints["canary"] = self._canary_of(message.text)
                content = (Text(BEFORE.format(mark)), *message.content, Text(AFTER.format(mark)))
                messages[place] = _without_labels(replace(message, content=content))
                break
        conversation = Conversation(self._model, spans, _history(messages), call.caller.groups)
        rules = Rules(self._shapes, prints, self._treatments)
        extra = {name: value for name, value in request.extra.items() if name in _PASSED}
        return Begun(replace(request, messages=tuple(messages), extra=extra), conversation, rules, call)

    def _make_canary(self, prompt: str) -> tuple[str, Fingerprints]:
        mark = canary(self._key, f"{self._model}\0{prompt}")
        return mark, Fingerprints([("prompt", mark)])

    def _cleaned(self, place: int, message: Message, call: Call) -> Message:
        if self._guard.hidden == "pass":
            return message
        found = next((each for text in _texts(message) for each in hidden(text)), None)
        if found is None:
            return message
        if self._guard.hidden == "refuse":
            self._note(call, "hidden", message.role, "refuse")
            shown = " ".join(f"U+{ord(letter):04X}" for letter in found[:8])
            raise Invalid(f"Message {place} has hidden characters: {shown}.", fix="send the text that people see.")
        self._note(call, "hidden", message.role, "strip")
        content = tuple(
            replace(part, text=without_hidden(part.text)) if isinstance(part, Text) else part
            for part in message.content
        )
        calls = tuple(replace(each, arguments=without_hidden(each.arguments)) for each in message.tool_calls)
        return replace(message, content=content, tool_calls=calls, reasoning=without_hidden(message.reasoning))

    def _made(self, messages: Sequence[Message], call: Call) -> Mapping[str, ToolCall]:
        """Return the calls that a model made for this caller, by their signed ids, with the ids of the upstream."""
        made: dict[str, ToolCall] = {}
        forged: list[str] = []
        for message in messages:
            for each in message.tool_calls:
                original = self._signer.original(each, call.owner)
                if original is None:
                    forged.append(each.name)
                else:
                    made[each.id] = replace(each, id=original)
            if message.role == "tool" and message.tool_call_id not in made:
                forged.append("")
        for name in forged:
            self._note(call, "unsigned", name, self._guard.unsigned)
        if forged and self._guard.unsigned == "refuse":
            raise Invalid(
                "The conversation has a call of a tool, or its result, that no model asked for like this.",
                fix="send calls back as they came: id, name and arguments.",
            )
        return made

    def _labels(self, messages: list[Message], made: Mapping[str, ToolCall]) -> Iterator[tuple[str, Label]]:
        for message in messages:
            known = made.get(message.tool_call_id) if message.role == "tool" else None
            tool = None if known is None else self._guard.tool(known.name)
            for part in message.content:
                if isinstance(part, Other):  # documents, results of searches: what strangers wrote
                    declared: object = None if part.kind in _OWN else Label.RETRIEVED
                else:
                    declared = part.extra.get(PROVENANCE)
                declared = message.extra.get(PROVENANCE) if declared is None else declared
                label = lowered(message.role, declared)
                if label is Label.TOOL and declared is None and tool is not None and not tool.taints:
                    label = Label.DEVELOPER
                yield (part.text if isinstance(part, Text) else "", label)
            for call in message.tool_calls:
                yield call.arguments, Label.ASSISTANT if call.id in made else Label.TOOL


def _length(message: Message) -> int:
    """Return the number of characters of a message's texts, and of content of other kinds as JSON."""
    others = sum(len(msgspec.json.encode(part.raw)) for part in message.content if isinstance(part, Other))
    return others + sum(map(len, _texts(message)))


def _texts(message: Message) -> Iterator[str]:
    for part in message.content:
        if isinstance(part, Text):
            yield part.text
    for call in message.tool_calls:
        yield call.arguments
    yield message.reasoning


def _without_labels(message: Message) -> Message:
    """Return a message without labels; texts that only their labels kept apart are one."""
    content: list[Part] = []
    for part in message.content:
        bare = part if isinstance(part, Other) else replace(part, extra=_less(part.extra))
        before = content[-1] if content else None
        if isinstance(bare, Text) and isinstance(before, Text) and not bare.extra and not before.extra:
            content[-1] = Text(before.text + bare.text)
        else:
            content.append(bare)
    return replace(message, content=tuple(content), extra=_less(message.extra))


def _with_ids(message: Message, made: Mapping[str, ToolCall]) -> Message:
    """Return a message with the upstream's ids of calls."""
    calls = tuple(replace(each, id=made[each.id].id) if each.id in made else each for each in message.tool_calls)
    answered = made.get(message.tool_call_id)
    return replace(message, tool_calls=calls, tool_call_id=message.tool_call_id if answered is None else answered.id)


def _less(extra: Mapping[str, object]) -> Mapping[str, object]:
    return {name: value for name, value in extra.items() if name != PROVENANCE}


def _history(messages: list[Message]) -> History:
    steps = 0
    for message in messages:
        if message.role == "user":
            steps = 0
        elif message.tool_calls:
            steps += 1
    calls = [Proposed(call.name, call.arguments) for message in messages for call in message.tool_calls]
    return History(steps, tuple(calls))
