"""Declaration of language models: a name for callers, the upstreams that serve it, and its deadlines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from math import isfinite

import msgspec

from mainspring.core.definition_registry import declare, expect, expect_each
from mainspring.core.errors import Invalid
from mainspring.core.ids import check_id
from mainspring.core.time import parse_duration
from mainspring.llm.counting import BYTES_A_TOKEN
from mainspring.llm.guarding.declaring import Guard
from mainspring.llm.limits import AnswerCache, Fallback, check_quotas
from mainspring.llm.model import Deadlines, Usage
from mainspring.security.quota import Quota, check_callers

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
_FALLBACK = Fallback()


@dataclass(frozen=True)
class UpstreamModel:
    """A model at an upstream. Its address and key are in the profile: `[profiles.NAME.llm.upstreams.UPSTREAM]`.

    Args:
        upstream: The upstream's name in the profile.
        model: Name of the model there.
        price: Of its tokens.
        context: Largest number of tokens of a prompt and its answer together; `None`: unknown.
        capacity: Tokens of all calls under way at once, prompts and answers together, by all processes of a gateway;
            further calls wait. `None`: any number.
    """

    upstream: str
    model: str
    _: KW_ONLY
    price: TokenPrice = _FREE
    context: int | None = None
    capacity: int | None = None

    def __post_init__(self) -> None:
        check_id(self.upstream, "upstream")
        owner = f"of upstream {self.upstream!r}"
        expect(self.model, str, f"The model {owner}", fix='write its name there: "qwen3-8b".')
        if not self.model or not self.model.isprintable():
            raise Invalid(f"The model {owner} is {self.model!r}.", fix='write its name there: "qwen3-8b".')
        expect(self.price, TokenPrice, f"The price {owner}", fix="write price=ms.TokenPrice(prompt=0.15).")
        for name in ("context", "capacity"):
            given = getattr(self, name)
            if given is not None:
                expect(given, int, f"The {name} {owner}", fix="write a number of tokens.")
                if given < 1:
                    raise Invalid(f"The {name} {owner} is {given}.", fix="write a number of tokens.")


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
        checks_schema: Whether answers are checked against the JSON schema that a caller asks for (extra `llm`).
        guard: Rules of its conversations: calls of tools, and what goes out. `None`: everything passes.
        quotas: Budgets of callers: of tokens, requests or money.
        max_tokens: Tokens that an answer is taken to have at most where a request gives no bound; under a quota it is
            bounded to that.
        bytes_a_token: Bytes of UTF-8 to a token, for what is estimated before an upstream has counted.
        queue: Calls that wait at most for the capacity of an upstream, in each process of a gateway.
        weights: Caller ("key:NAME", "group:NAME", ...) -> share of its key while calls wait; 1 for others.
        fallback: Use of several upstreams.
        cache: Use of earlier answers; `None`: each request is answered anew.
    """

    name: str
    _: KW_ONLY
    upstreams: Sequence[UpstreamModel]
    first_event: str | int = "60s"
    between_events: str | int = "30s"
    deadline: str | int = "10m"
    embeds: bool = False
    checks_schema: bool = False
    guard: Guard | None = None
    description: str = ""
    quotas: Sequence[Quota] = ()
    max_tokens: int = 4096
    bytes_a_token: float = BYTES_A_TOKEN
    queue: int = 256
    weights: Mapping[str, float] = field(default_factory=dict)
    fallback: Fallback = _FALLBACK
    cache: AnswerCache | None = None

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
        expect(self.checks_schema, bool, f"checks_schema {owner}", fix="write True or False.")
        if self.guard is not None:
            expect(self.guard, Guard, f"The guard {owner}", fix="write guard=ms.Guard(tools=[...]).")
            if self.embeds:
                raise Invalid(f"Language model {self.name!r} makes vectors and has a guard.", fix="remove the guard.")
        expect(self.description, str, f"The description {owner}", fix="write a text.")
        object.__setattr__(self, "upstreams", tuple(self.upstreams))
        self._check_limits(owner)
        _ = self.deadlines
        declare(self)

    def _check_limits(self, owner: str) -> None:
        expect_each(self.quotas, Quota, f"The quotas {owner}", fix="write quotas=[ms.Quota(...)].")
        priced = any(each.price != _FREE for each in self.upstreams)
        whose = f"The language model {self.name!r}"
        object.__setattr__(self, "quotas", check_quotas(self.quotas, priced, whose))
        for name in ("max_tokens", "queue"):
            given = getattr(self, name)
            expect(given, int, f"{name} {owner}", fix="write a number above 0.")
            if given < 1:
                raise Invalid(f"{whose} has {name}={given}.", fix="write a number above 0.")
        if not 0.1 <= self.bytes_a_token <= 100:
            raise Invalid(f"{whose} has bytes_a_token={self.bytes_a_token}.", fix="write about 3.")
        expect(self.weights, Mapping, f"The weights {owner}", fix='write weights={"group:trial": 0.2}.')
        check_callers(tuple(self.weights), whose)
        if not all(isfinite(each) and each > 0 for each in self.weights.values()):
            raise Invalid(f"{whose} has the weights {dict(self.weights)}.", fix="write shares above 0.")
        expect(self.fallback, Fallback, f"The fallback {owner}", fix="write fallback=ms.Fallback(...).")
        if self.cache is not None:
            expect(self.cache, AnswerCache, f"The cache {owner}", fix="write cache=ms.AnswerCache(...).")

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
