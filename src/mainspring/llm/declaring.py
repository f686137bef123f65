"""Declaration of language models: a name for callers, the upstreams that serve it, and its deadlines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from math import isfinite

import msgspec

from mainspring.core.definition_registry import declare, expect, expect_each
from mainspring.core.errors import Invalid
from mainspring.core.ids import check_id
from mainspring.core.time import parse_duration
from mainspring.llm.guarding.declaring import Guard
from mainspring.llm.model import Deadlines, Usage

_MOST = 1_000_000


class TokenPrice(msgspec.Struct, frozen=True, kw_only=True):
    """Price of a million tokens, in the project's currency.

    Args:
        prompt: Of the prompt's tokens.
        completion: Of generated tokens, those of reasoning included.
        cached: Of the prompt's tokens that the upstream read from its cache; by default as `prompt`.
        written: Of the prompt's tokens that it wrote to its cache; by default as `prompt`.
    """

    prompt: float = 0.0
    completion: float = 0.0
    cached: float | None = None
    written: float | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            given = getattr(self, name)
            if given is None and name in ("cached", "written"):
                continue
            what = f"The price of {name} tokens"
            expect(given, (int, float), what, fix="write the price of a million of them.")
            if not isfinite(given) or not 0 <= given <= _MOST:
                raise Invalid(f"{what} is {given!r}.", fix="write the price of a million of them, 0 or more.")

    def micros(self, usage: Usage) -> int:
        """Return the cost of a request in millionths of the currency, rounded up."""
        cached = self.prompt if self.cached is None else self.cached
        written = self.prompt if self.written is None else self.written
        plain = max(0, usage.prompt - usage.cached - usage.written)
        cost = plain * self.prompt + usage.cached * cached + usage.written * written
        return -int(-(cost + usage.completion * self.completion) // 1)


_FREE = TokenPrice()


@dataclass(frozen=True)
class UpstreamModel:
    """A model at an upstream. Its address and key are in the profile: `[profiles.NAME.llm.upstreams.UPSTREAM]`.

    Args:
        upstream: The upstream's name in the profile.
        model: Name of the model there.
        price: Of its tokens.
        context: Largest number of tokens of a prompt and its answer together; `None`: unknown.
    """

    upstream: str
    model: str
    _: KW_ONLY
    price: TokenPrice = _FREE
    context: int | None = None

    def __post_init__(self) -> None:
        check_id(self.upstream, "upstream")
        owner = f"of upstream {self.upstream!r}"
        expect(self.model, str, f"The model {owner}", fix='write its name there: "qwen3-8b".')
        if not self.model or not self.model.isprintable():
            raise Invalid(f"The model {owner} is {self.model!r}.", fix='write its name there: "qwen3-8b".')
        expect(self.price, TokenPrice, f"The price {owner}", fix="write price=ms.TokenPrice(prompt=0.15).")
        if self.context is not None:
            expect(self.context, int, f"The context {owner}", fix="write a number of tokens.")
            if self.context < 1:
                raise Invalid(f"The context {owner} is {self.context}.", fix="write a number of tokens.")


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A name under which callers ask a language model.

    Args:
        name: Its name, an id; callers give it as `model`.
        upstreams: The models that serve it, the preferred one first.
        first_event: Longest time to the first token of a stream, or to a whole answer; a duration.
        between_events: Longest time from one event of a stream to the next.
        deadline: Longest time to the end of an answer.
        embeds: Whether it makes vectors of texts, instead of messages.
        guard: Rules of its conversations: calls of tools, and what goes out. `None`: everything passes.
    """

    name: str
    _: KW_ONLY
    upstreams: Sequence[UpstreamModel]
    first_event: str | int = "60s"
    between_events: str | int = "30s"
    deadline: str | int = "10m"
    embeds: bool = False
    guard: Guard | None = None
    description: str = ""

    def __post_init__(self) -> None:
        check_id(self.name, "language model")
        owner = f"of language model {self.name!r}"
        expect_each(
            self.upstreams,
            UpstreamModel,
            f"The upstreams {owner}",
            fix='write [ms.UpstreamModel("local", "qwen3-8b")].',
        )
        if not self.upstreams:
            raise Invalid(
                f"Language model {self.name!r} has no upstream.", fix='write [ms.UpstreamModel("local", "qwen3-8b")].'
            )
        expect(self.embeds, bool, f"embeds {owner}", fix="write True or False.")
        if self.guard is not None:
            expect(self.guard, Guard, f"The guard {owner}", fix="write guard=ms.Guard(tools=[...]).")
            if self.embeds:
                raise Invalid(f"Language model {self.name!r} makes vectors and has a guard.", fix="remove the guard.")
        expect(self.description, str, f"The description {owner}", fix="write a text.")
        object.__setattr__(self, "upstreams", tuple(self.upstreams))
        _ = self.deadlines
        declare(self)

    @cached_property
    def deadlines(self) -> Deadlines:
        first, between, whole = map(parse_duration, (self.first_event, self.between_events, self.deadline))
        if not 0 < max(first, between) <= whole or not min(first, between):
            raise Invalid(
                f"Language model {self.name!r} has first_event={self.first_event!r}, "
                f"between_events={self.between_events!r} and deadline={self.deadline!r}.",
                fix="write times above 0, of which the deadline is the longest.",
            )
        return Deadlines(first=first, between=between, whole=whole)
