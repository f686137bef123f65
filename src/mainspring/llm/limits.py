"""Declarations of what a language model may use and how: several upstreams, earlier answers, quotas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from mainspring.core.circuit_breaker import BreakerRule
from mainspring.core.errors import Invalid
from mainspring.core.time import parse_duration
from mainspring.llm.model import ChatRequest
from mainspring.security.quota import REFUSE, Quota

DECLARED, PRICE, LATENCY = "declared", "price", "latency"
_STORED = ("store", "background", "previous_response_id", "conversation")


class Fallback(msgspec.Struct, frozen=True, kw_only=True):
    """Use of several upstreams of a language model.

    Args:
        order: Order in which healthy upstreams are asked: as "declared", by "price", or by measured "latency".
        attempts: Calls of upstreams for a request at most, hedges not counted.
        patience: Longest wait, a duration, for an upstream without capacity, or that cannot be reached, where no other
            takes the request; it is asked again after that.
        repeat: Whether a request is sent again that an upstream may have worked on: it failed, or was late, before the
            first token. That may be paid twice.
        hedge: Share of requests for which a second upstream may be asked while the first is slower than usual.
        breaker: When an upstream is not asked for a while.
    """

    order: Literal["declared", "price", "latency"] = "declared"
    attempts: int = 3
    patience: str = "0s"
    repeat: bool = False
    hedge: float = 0.0
    breaker: BreakerRule = BreakerRule()

    def __post_init__(self) -> None:
        if self.order not in (DECLARED, PRICE, LATENCY):
            raise Invalid(f"A fallback has the order {self.order!r}.", fix=f"write {DECLARED}, {PRICE} or {LATENCY}.")
        _ = parse_duration(self.patience)
        if not self.attempts >= 1 or not 0 <= self.hedge <= 1:
            raise Invalid(
                f"A fallback has {self.attempts} attempts and the share {self.hedge:g} of hedges.",
                fix="write at least 1 attempt, and a share from 0 to 1.",
            )


class AnswerCache(msgspec.Struct, frozen=True, kw_only=True):
    """Use of earlier answers of a language model.

    Args:
        ttl: Time after which an answer is made anew; a duration.
        most_bytes: Size of all answers that a gateway process keeps; those under way, which several callers may wait
            for, have as much again.
        sampled: Whether answers of requests with another temperature than 0 are kept, too: each caller then gets the
            same one again.
        similar: Cosine of two questions from which on the answer of one is given for the other, after the same
            conversation; `None`: only the answers of equal requests. Measure a threshold before you use it:
            `mainspring.llm.caching.wrong_hits`.
        encoder: Name of the encoder that compares them.
    """

    ttl: str = "1h"
    most_bytes: int = 64 << 20
    sampled: bool = False
    similar: float | None = None
    encoder: str = ""

    def __post_init__(self) -> None:
        if self.similar is not None and (not 0 < self.similar <= 1 or not self.encoder):
            raise Invalid(
                f"A cache has similar={self.similar:g} and encoder={self.encoder!r}.",
                fix="name an encoder, and choose a cosine up to 1.",
            )
        if not parse_duration(self.ttl) or self.most_bytes < 1:
            raise Invalid(f"A cache has ttl={self.ttl!r} and {self.most_bytes} bytes.", fix="give it some of both.")


def check_quotas(quotas: Sequence[Quota], priced: bool, owner: str) -> tuple[Quota, ...]:
    """Return the quotas of a language model.

    Raises:
        Invalid: One is of rows, or answers with labels, or is of money while tokens have no price.
    """
    for quota in quotas:
        if quota.rows is not None:
            raise Invalid(f"{owner} has the quota {quota.name!r} of rows.", fix="write tokens=, requests= or cost=.")
        if quota.spent != REFUSE:
            raise Invalid(f"{owner} has the quota {quota.name!r} with spent={quota.spent!r}.", fix="leave it out.")
        if quota.cost is not None and not priced:
            raise Invalid(f"{owner} has a quota of money and no price.", fix="write price=ms.TokenPrice(prompt=0.15).")
    return tuple(quotas)


def repeatable(request: ChatRequest) -> bool:
    """Return whether a request can be sent twice without doing something twice: its tools are run by the caller, and
    the upstream stores nothing."""
    return all(tool.kind == "function" for tool in request.tools) and not any(
        request.extra.get(each) for each in _STORED
    )
