"""Prompts: templates of messages with variables, which have types and a provenance.

A template has `{name}` for each variable; `{{name}}` is the text `{name}`. Nothing else has a meaning: there is no
expression, condition or loop. All variables are filled at once, so that a value never becomes a template.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from hashlib import sha256
from typing import Any, Literal, get_args

import msgspec

from mainspring.core.definition_registry import declare, expect
from mainspring.core.errors import Invalid
from mainspring.core.ids import check_id
from mainspring.llm.guarding.provenance import Label, lowered
from mainspring.llm.model import PROVENANCE, Message, Text

Type = Literal["text", "integer", "number", "boolean"]
_TYPES: Mapping[Type, type | tuple[type, ...]] = {
    "text": str, "integer": int, "number": (int, float), "boolean": bool,
}  # fmt: skip
_ROLES = ("system", "developer", "user", "assistant")
_PLACE = re.compile(r"\{(\{)?([A-Za-z_][A-Za-z0-9_]*)\}(?(1)\})")
_MOST = 10_000_000


class Variable(msgspec.Struct, frozen=True, kw_only=True):
    """A variable of a prompt.

    Args:
        type: "text", "integer", "number" or "boolean".
        provenance: Source of its values: "system", "developer", "user", "assistant", "retrieved" or "tool". It lowers
            the trust in the part of the message that it fills, and never raises it.
        longest: Number of characters of a text.
        values: Permitted values; none: all of the type.
    """

    type: Type = "text"
    provenance: str = "user"
    longest: int = 100_000
    values: tuple[str | int | float | bool, ...] = ()

    def __post_init__(self) -> None:
        if self.type not in get_args(Type):
            raise Invalid(f"A variable has the type {self.type!r}.", fix=f"use one of {', '.join(get_args(Type))}.")
        if self.provenance not in list(Label):
            raise Invalid(f"A variable has the provenance {self.provenance!r}.", fix=f"use one of {', '.join(Label)}.")
        expect(self.longest, int, "The longest text of a variable", fix="write a number of characters.")
        if not 1 <= self.longest <= _MOST:
            raise Invalid(f"The longest text of a variable is {self.longest}.", fix=f"write 1 to {_MOST}.")

    def written(self, name: str, value: Any) -> str:
        """Return a value as text.

        Raises:
            Invalid: It has another type, is not permitted, or too long. The message does not have it.
        """
        if not isinstance(value, _TYPES[self.type]) or (isinstance(value, bool) and self.type != "boolean"):
            raise Invalid(f"The variable {name!r} is of type {type(value).__name__}.", fix=f"give a {self.type}.")
        if self.values and value not in self.values:
            raise Invalid(f"The variable {name!r} has a value that is not permitted.", fix="give one of its values.")
        text = value if isinstance(value, str) else json.dumps(value)
        if len(text) > self.longest:
            raise Invalid(f"The variable {name!r} has {len(text)} characters.", fix=f"give at most {self.longest}.")
        return text


_TEXT = Variable()


class Template(msgspec.Struct, frozen=True):
    """A message of a prompt."""

    role: Literal["system", "developer", "user", "assistant"]
    text: str


@dataclass(frozen=True, eq=False)
class Prompt:
    """A prompt with a name. Each change of it is a version, which `apply` records.

    Args:
        name: An id.
        template: Text of the user's message, or messages as pairs of role and text.
        system: Text of a system message before them.
        variables: Name -> type and provenance. One that is only in the text is a text of the user's.
    """

    name: str
    template: str | Sequence[tuple[str, str]]
    _: KW_ONLY
    system: str = ""
    variables: Mapping[str, Variable] = field(default_factory=dict)
    description: str = ""

    def __post_init__(self) -> None:
        check_id(self.name, "prompt")
        owner = f"of prompt {self.name!r}"
        given: list[Any] = [("user", self.template)] if isinstance(self.template, str) else list(self.template)
        given = [("system", self.system), *given] if self.system else given
        for each in given:
            pair = isinstance(each, (tuple, list)) and len(each) == 2
            if not pair or each[0] not in _ROLES or not isinstance(each[1], str):
                raise Invalid(f"A message {owner} is {each!r}.", fix='write ("user", "Answer: {question}").')
        expect(self.variables, Mapping, f"The variables {owner}", fix='write {"question": ms.Variable()}.')
        for name, variable in self.variables.items():
            expect(variable, Variable, f"The variable {name!r} {owner}", fix='write ms.Variable(type="text").')
        messages = tuple(Template(role, text) for role, text in given)
        used = {found[2] for each in messages for found in _PLACE.finditer(each.text) if not found[1]}
        unused = sorted(set(self.variables) - used)
        if unused:
            raise Invalid(
                f"The variable {unused[0]!r} {owner} is in no message.", fix="write it in braces, or remove it."
            )
        object.__setattr__(self, "messages", messages)
        object.__setattr__(self, "variables", {name: self.variables.get(name, _TEXT) for name in sorted(used)})
        declare(self)

    messages: tuple[Template, ...] = field(init=False, default=())

    def document(self) -> dict[str, Any]:
        """Return what a version is made of, as JSON values."""
        return {
            "messages": [msgspec.to_builtins(each) for each in self.messages],
            "variables": {name: msgspec.to_builtins(each) for name, each in self.variables.items()},
            **({"description": self.description} if self.description else {}),
        }

    @property
    def digest(self) -> str:
        """Digest of messages and variables: SHA-256 in hexadecimal."""
        return digest_of(self.document())

    def render(self, **values: Any) -> tuple[Message, ...]:
        """Return the messages with their variables filled. Each value is a part of its own, which has its provenance.

        Raises:
            Invalid: A variable is missing, unknown, or has a value that is not permitted.
        """
        unknown, missing = sorted(set(values) - set(self.variables)), sorted(set(self.variables) - set(values))
        if unknown or missing:
            wrong = f"has no variable {unknown[0]!r}" if unknown else f"needs the variable {missing[0]!r}"
            names = ", ".join(self.variables) or "none"
            raise Invalid(f"The prompt {self.name!r} {wrong}.", fix=f"its variables: {names}.")
        written = {name: self.variables[name].written(name, value) for name, value in values.items()}
        return tuple(
            Message(role=each.role, content=tuple(_merged(self._parts(each, written)))) for each in self.messages
        )

    def _parts(self, message: Template, written: Mapping[str, str]) -> Iterable[Text]:
        at = 0
        for found in _PLACE.finditer(message.text):
            yield Text(message.text[at : found.start()])
            at = found.end()
            if found[1]:
                yield Text(found[0][1:-1])
            else:
                label = lowered(message.role, self.variables[found[2]].provenance)
                yield Text(written[found[2]], {PROVENANCE: label.value} if label != message.role else {})
        yield Text(message.text[at:])


def digest_of(document: Mapping[str, Any]) -> str:
    """Return the digest of a prompt's `document`; its description does not count."""
    told = {name: document[name] for name in ("messages", "variables")}
    return sha256(json.dumps(told, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()


def _merged(parts: Iterable[Text]) -> Iterable[Text]:
    held: Text | None = None
    for part in parts:
        if not part.text:
            continue
        if held is not None and held.extra == part.extra:
            held = Text(held.text + part.text, held.extra)
            continue
        if held is not None:
            yield held
        held = part
    if held is not None:
        yield held


class PromptVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a prompt, as `apply` recorded it.

    Attributes:
        version: From 1, in the order of recording.
        digest: Of messages and variables.
        applied_at: UTC epoch microseconds.
    """

    name: str
    version: int
    digest: str
    messages: tuple[Template, ...]
    variables: dict[str, Variable]
    applied_at: int
    description: str = ""

    @property
    def prompt(self) -> Prompt:
        """The prompt as it was."""
        template = [(each.role, each.text) for each in self.messages]
        return Prompt(self.name, template, variables=self.variables, description=self.description)


class PromptAlias(msgspec.Struct, frozen=True, kw_only=True):
    """A name for a version of a prompt, which is moved.

    Attributes:
        canary: Another version, which a share of the keys gets.
        moved_at: UTC epoch microseconds.
    """

    name: str
    alias: str
    version: int
    canary: int | None = None
    share: float = 0.0
    moved_at: int
    moved_by: str

    def chosen(self, key: str) -> int:
        """Return the version for a key, such as a user's id: always the same while the alias stays. A larger share
        keeps those who had the canary.
        """
        if self.canary is None:
            return self.version
        drawn = sha256("\0".join((self.name, self.alias, str(self.canary), key)).encode("utf-8", "surrogatepass"))
        return self.canary if int.from_bytes(drawn.digest()[:8]) < self.share * 2**64 else self.version
