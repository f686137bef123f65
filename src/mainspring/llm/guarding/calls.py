"""Decisions on calls of tools: declared, well-formed, permitted by lists, limits and policies, approved by a person.

A gateway sees a conversation's messages and the model's answer. A call that is refused never reaches the caller, whose
program would run it. Counts are those of the conversation as the caller sent it: a caller who leaves messages out also
takes their content away from the model.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal

from mainspring.llm.guarding.declaring import Guard
from mainspring.llm.guarding.provenance import TAINTED, Label, Span, leaves, origins, taint
from mainspring.security.tool_calls import ToolCall as Asked

MOST_BYTES = 100_000  # of a call's arguments
_DEEPEST = 32
Reason = Literal["undeclared", "malformed", "arguments", "disclosure", "loop", "policy", "approval"]


@dataclass(frozen=True, slots=True)
class Proposed:
    """A call that a model asks for. `arguments` is the text that it wrote, which need not be JSON."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Ruling:
    """A decision on a call.

    Attributes:
        reason: Kind of refusal, empty where it is permitted; "approval" where all that is left is a person's decision.
        why: Sentence for people and models. It has no value that the model wrote but the tool's name.
        digest: Of the tool and its arguments: what a person approves.
    """

    call: Proposed
    reason: Reason | Literal[""] = ""
    why: str = ""
    digest: str = ""

    @property
    def permitted(self) -> bool:
        return not self.reason


@dataclass(frozen=True, slots=True)
class History:
    """Calls of a conversation so far.

    Attributes:
        steps: Answers with calls after the last message of a user.
    """

    steps: int
    calls: tuple[Proposed, ...]


@dataclass(frozen=True, slots=True)
class Conversation:
    """The facts about a conversation that a decision needs."""

    model: str
    spans: Sequence[Span]
    history: History
    groups: frozenset[str] = frozenset()  # of the caller


Permits = Callable[[Asked], bool]
Discloses = Callable[[str], bool]


def parsed(text: str) -> dict[str, Any] | None:
    """Return the arguments of a call, or `None` where the text is no JSON object, too large or too deep, or has a field
    twice. No text at all is no arguments.
    """
    if len(text) > MOST_BYTES or len(text.encode("utf-8", "surrogatepass")) > MOST_BYTES:
        return None
    if not text.strip():
        return {}
    try:
        found = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and _depth(found) <= _DEEPEST else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field is there twice")
    return found


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _depth(value: Any) -> int:
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, below), default=0)


def digest(name: str, arguments: Mapping[str, Any]) -> str:
    """Return the digest of a call, the same for every way to write the same arguments."""
    return sha256(json.dumps([name, arguments], sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


def rule(
    guard: Guard,
    conversation: Conversation,
    proposed: Sequence[Proposed],
    *,
    permits: Permits,
    discloses: Discloses | None = None,
) -> list[Ruling]:
    """Return the decisions on the calls of one answer, in order.

    Args:
        permits: Whether policies permit a call.
        discloses: Whether a text has something that must not be given out; by default none has.
    """
    return list(_rulings(guard, conversation, proposed, permits, discloses))


def _rulings(
    guard: Guard,
    conversation: Conversation,
    proposed: Sequence[Proposed],
    permits: Permits,
    discloses: Discloses | None,
) -> Iterator[Ruling]:
    history = conversation.history
    made = Counter(_same(each) for each in history.calls)
    of_tool = Counter(each.name for each in history.calls)
    labels = taint(conversation.spans)
    total = len(history.calls)
    for call in proposed:
        shown = repr(call.name[:64])
        tool = guard.tool(call.name)
        if tool is None:
            yield Ruling(call, "undeclared", f"There is no tool {shown} here.")
            continue
        arguments = parsed(call.arguments)
        if arguments is None:
            yield Ruling(call, "malformed", f"The arguments of {shown} are no JSON object.")
            continue
        trouble = tool.refusal(arguments)
        if trouble is not None:
            yield Ruling(call, "arguments", f"The call of {shown} {trouble}.")
            continue
        same = digest(call.name, arguments)
        loop = (
            f"after {guard.steps} answers with calls in a row"
            if history.steps >= guard.steps
            else f"after {guard.calls} calls in this conversation"
            if total >= guard.calls
            else f"after {guard.repeats} calls with the same arguments"
            if made[same] >= guard.repeats
            else f"after {tool.calls} calls of it in this conversation"
            if tool.calls is not None and of_tool[call.name] >= tool.calls
            else ""
        )
        if loop:
            yield Ruling(call, "loop", f"{shown} is not called {loop}.")
            continue
        if discloses is not None and any(map(discloses, leaves(arguments))):
            yield Ruling(call, "disclosure", f"The arguments of {shown} have something that must not be given out.")
            continue
        asked = Asked(
            model=conversation.model,
            tool=call.name,
            taint=frozenset(labels),
            tainted=bool(labels & TAINTED),
            arguments=_named(origins(arguments, conversation.spans)),
            groups=conversation.groups,
        )
        if not permits(asked):
            read = ", ".join(sorted(labels & TAINTED))
            because = f" after content of strangers was read ({read})" if asked.tainted else ""
            yield Ruling(call, "policy", f"No policy permits to call {shown}{because}.")
            continue
        if tool.approval:
            yield Ruling(call, "approval", f"The call of {shown} waits for a person's approval.", same)
            continue
        made[same] += 1
        of_tool[call.name] += 1
        total += 1
        yield Ruling(call, digest=same)


def _same(call: Proposed) -> str:
    return digest(call.name, parsed(call.arguments) or {})


def _named(found: Mapping[str, frozenset[Label]]) -> Mapping[str, frozenset[str]]:
    return {name: frozenset(label.value for label in labels) for name, labels in found.items()}
