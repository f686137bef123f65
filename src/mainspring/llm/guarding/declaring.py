"""Declaration of guards: the tools that a language model may call, and what comes in and goes out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

from mainspring.core.definition_registry import expect, expect_each
from mainspring.core.errors import Invalid
from mainspring.core.ids import check_id
from mainspring.llm.guarding.patterns import PERSONAL, host_of, within
from mainspring.llm.guarding.scanner import MARK, REDACT, REFUSE, Treatment

Hidden = Literal["strip", "refuse", "pass"]
Unsigned = Literal["taint", "refuse"]
_TREATMENTS = (REFUSE, REDACT, MARK)
_DOMAIN = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+")
_TEXT = 1000  # characters of a text without a pattern


@dataclass(frozen=True)
class Argument:
    """An allow-list of an argument's values; of a list, each of its elements is looked up.

    Args:
        values: Permitted texts, numbers and Booleans.
        pattern: Regular expression that a text matches as a whole.
        domains: Hosts that one address, or e-mail address, must have, or be below.
        longest: Number of characters of a text.
        required: Whether the argument must be there.
    """

    _: KW_ONLY
    values: Sequence[str | int | float | bool] | None = None
    pattern: str | None = None
    domains: Sequence[str] | None = None
    longest: int = _TEXT
    required: bool = False

    def __post_init__(self) -> None:
        if self.values is not None:
            expect_each(self.values, (str, int, float, bool), "The values of an argument", fix='write values=["low"].')
        if self.pattern is not None:
            expect(self.pattern, str, "The pattern of an argument", fix="write a regular expression.")
            try:
                re.compile(self.pattern)
            except re.error as error:
                raise Invalid(f"The pattern {self.pattern!r} of an argument is none: {error}.") from None
        if self.domains is not None:
            _check_domains(self.domains, "The domains of an argument")
        expect(self.longest, int, "The longest text of an argument", fix="write a number of characters.")

    def refuses(self, value: Any) -> bool:
        """Return whether a JSON value is not permitted."""
        if isinstance(value, list):
            return any(isinstance(each, list) or self.refuses(each) for each in value)
        if isinstance(value, Mapping):
            return True
        if self.values is not None and not any(type(value) is type(each) and value == each for each in self.values):
            return True
        if self.pattern is None and self.domains is None:
            return isinstance(value, str) and len(value) > self.longest
        if not isinstance(value, str) or len(value) > self.longest:
            return True
        if self.pattern is not None and not re.fullmatch(self.pattern, value):
            return True
        return self.domains is not None and (
            any(each in ",;|" for each in value) or not within(host_of(value), self.domains)
        )


@dataclass(frozen=True)
class Tool:
    """A tool that a language model may call.

    Args:
        name: As requests call it.
        arguments: Name -> permitted values; others are refused. `None`: any.
        approval: Whether a person approves each call.
        taints: Whether what it returns is content of strangers: pages, mails, files. Only a tool whose results nobody
            else can write, such as a clock, does not.
        calls: Largest number of its calls in a conversation.
    """

    name: str
    _: KW_ONLY
    arguments: Mapping[str, Argument] | None = None
    approval: bool = False
    taints: bool = True
    calls: int | None = None

    def __post_init__(self) -> None:
        check_id(self.name, "tool")
        owner = f"of tool {self.name!r}"
        if self.arguments is not None:
            expect(self.arguments, Mapping, f"The arguments {owner}", fix='write {"to": ms.Argument(...)}.')
            fix = 'write ms.Argument(values=["low", "high"]).'
            expect_each(list(self.arguments.values()), Argument, f"The arguments {owner}", fix=fix)
        for name in ("approval", "taints"):
            expect(getattr(self, name), bool, f"{name} {owner}", fix="write True or False.")
        if self.calls is not None:
            _check_count(self.calls, f"The calls {owner}")

    def refusal(self, arguments: Mapping[str, Any]) -> str | None:
        """Return why arguments are not permitted, or `None`. It names arguments, and no value."""
        if self.arguments is None:
            return None
        for name in arguments:
            if name not in self.arguments:
                return f"has the argument {name[:64]!r}, which is not declared"
        for name, rule in self.arguments.items():
            if name not in arguments:
                if rule.required:
                    return f"has no argument {name!r}"
            elif rule.refuses(arguments[name]):
                return f"has a value of {name!r} that is not permitted"
        return None


def _personal() -> Mapping[str, Treatment]:
    return {}


@dataclass(frozen=True)
class Guard:
    """Rules of a language model's conversations, which no model decides.

    Args:
        tools: Tools that may be called, as far as policies permit `tool:call`; others are refused.
        steps: Largest number of answers with calls of tools after the last message of a user.
        calls: Largest number of calls of tools in a conversation.
        repeats: Largest number of calls of a tool with equal arguments in a conversation.
        longest: Largest number of characters of a prompt.
        hidden: Treatment of hidden characters of a prompt: "strip", "refuse" or "pass".
        unsigned: Treatment of calls in a conversation that no model made for this caller, or not with these arguments,
            and of their results: "taint", they are content of strangers, or "refuse".
        canary: Treatment of an answer that gives away the system prompt, which gets a random text for it: "refuse",
            "redact", "mark" or `None`: no text is added.
        secrets: Treatment of secrets in an answer: keys and tokens of known shapes, and those of the installation.
        personal: "email", "phone", "iban" and "card" -> treatment.
        links: Domains to which links and images in an answer may lead, others are redacted; `None`: all.
    """

    _: KW_ONLY
    tools: Sequence[Tool] = ()
    steps: int = 16
    calls: int = 64
    repeats: int = 3
    longest: int = 400_000
    hidden: Hidden = "strip"
    unsigned: Unsigned = "taint"
    canary: Treatment | None = REFUSE
    secrets: Treatment | None = REDACT
    personal: Mapping[str, Treatment] = field(default_factory=_personal)
    links: Sequence[str] | None = None

    def __post_init__(self) -> None:
        expect_each(self.tools, Tool, "The tools of a guard", fix='write [ms.Tool("search")].')
        names = [tool.name for tool in self.tools]
        for name in names:
            if names.count(name) > 1:
                raise Invalid(f"A guard has two tools {name!r}.", fix="declare each once.")
        for name in ("steps", "calls", "repeats", "longest"):
            _check_count(getattr(self, name), f"{name} of a guard")
        if self.hidden not in ("strip", "refuse", "pass"):
            raise Invalid(f"A guard has hidden={self.hidden!r}.", fix='write "strip", "refuse" or "pass".')
        if self.unsigned not in ("taint", "refuse"):
            raise Invalid(f"A guard has unsigned={self.unsigned!r}.", fix='write "taint" or "refuse".')
        expect(self.personal, Mapping, "The personal data of a guard", fix='write {"email": "redact"}.')
        for name in self.personal:
            if name not in PERSONAL:
                raise Invalid(f"A guard has the personal data {name!r}.", fix=f"use {', '.join(PERSONAL)}.")
        for each in (*self.personal.values(), self.canary, self.secrets):
            if each is not None and each not in _TREATMENTS:
                raise Invalid(f"A guard has the treatment {each!r}.", fix=f"use one of {', '.join(_TREATMENTS)}.")
        if self.links is not None:
            _check_domains(self.links, "The links of a guard")
        object.__setattr__(self, "tools", tuple(self.tools))

    def tool(self, name: str) -> Tool | None:
        return next((tool for tool in self.tools if tool.name == name), None)


def _check_count(given: Any, what: str) -> None:
    expect(given, int, what, fix="write a number above 0.")
    if given < 1:
        raise Invalid(f"{what} is {given}.", fix="write a number above 0.")


def _check_domains(given: Any, what: str) -> None:
    expect_each(given, str, what, fix='write ["example.org"].')
    for each in given:
        if not _DOMAIN.fullmatch(each):
            raise Invalid(f"{what} have {each!r}.", fix='write names in lower case: ["example.org"].')
