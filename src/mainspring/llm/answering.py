"""Answering for a language model: its upstreams, and the layers that stand before them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b

import msgspec
from msgspec.structs import replace

from mainspring.core.errors import NotReady, Unavailable
from mainspring.llm.accounting import Accounted
from mainspring.llm.admitting import Admitted
from mainspring.llm.budgets import Budgets
from mainspring.llm.caching import Cached, SemanticCache
from mainspring.llm.counting import prompt_tokens
from mainspring.llm.declaring import LanguageModel
from mainspring.llm.failover import Candidate, Failover
from mainspring.llm.machine_budgets import MachineBudgets
from mainspring.llm.model import Call, ChatRequest, UpstreamError
from mainspring.llm.ports import Answering, CountsTokens, HasKey, Upstream
from mainspring.llm.queueing import Admission, FairQueue
from mainspring.llm.schemas import SchemaChecked
from mainspring.llm.upstream_states import UpstreamStates
from mainspring.serving.plane.counts import Counts
from mainspring.serving.plane.lane import monotonic_us
from mainspring.vectors.ports import Encoder

_COUNT_US = 5_000_000  # longest time for an upstream's count of tokens


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """A language model and what answers for it.

    Attributes:
        upstreams: Those of the model that are known, by name.
    """

    model: LanguageModel
    answering: Answering
    upstreams: Mapping[str, Upstream] = field(default_factory=dict)

    async def count(self, request: ChatRequest, call: Call) -> tuple[int, bool]:
        """Return the tokens of a prompt, and whether that is an estimate of our own.

        An upstream's count is that of what it would get. Behind a guard nothing reaches an upstream unchecked, and
        there are no callers' tokens for a count: so the first upstream alone is asked, and not for long.
        """
        first = self.model.upstreams[0]
        upstream: object = self.upstreams.get(first.upstream)
        if self.model.guard is None and isinstance(upstream, CountsTokens):
            within = min(call.deadlines.first, _COUNT_US)
            deadlines = replace(call.deadlines, connect=min(call.deadlines.connect, within), first=within)
            with suppress(UpstreamError):
                asked = replace(request, model=first.model)
                return await upstream.count(asked, replace(call, deadlines=deadlines)), False
        return prompt_tokens(request, self.model.bytes_a_token), True


Assemble = Callable[[LanguageModel, Mapping[str, Upstream]], Answering]


def local_budgets() -> Budgets:
    """Return budgets of this process alone."""
    return MachineBudgets(Counts(), Counts(held=True))


def _no_encoder(name: str) -> Encoder:
    raise Unavailable(f"There is no encoder {name!r} here.")


@dataclass(frozen=True, slots=True)
class Shared:
    """Parts that all language models of a process share.

    Attributes:
        budgets: By default this process's alone.
        workers: Processes of the gateway, each of which gets its part of an upstream's capacity.
        encoder: Opens an encoder by name, for semantic caches; called in a thread.
        now: A clock that is never set, microseconds.
        erasures: Returns a mark of the last erasure of a person's data, after which earlier answers are given no more.
        states: Gets the upstreams of each model.
    """

    budgets: Budgets = field(default_factory=local_budgets)
    workers: int = 1
    encoder: Callable[[str], Encoder] = _no_encoder
    now: Callable[[], int] = monotonic_us
    erasures: Callable[[], str] = str
    states: UpstreamStates = field(default_factory=UpstreamStates)


def assemble(model: LanguageModel, upstreams: Mapping[str, Upstream], shared: Shared | None = None) -> Answering:
    """Return what answers for a language model. All that stands before upstreams is put in here: the cache, the
    accounts of callers, the choice of an upstream, and the queue of each.

    Args:
        upstreams: Those that the profile has, by name.

    Raises:
        NotReady: The profile has none of the model's upstreams.
    """
    shared = shared or Shared()
    known = [each for each in model.upstreams if each.upstream in upstreams]
    if not known:
        raise NotReady(
            f"The profile has none of the upstreams of the language model {model.name!r}.",
            fix=f"write [profiles.NAME.llm.upstreams.{model.upstreams[0].upstream}], then its url.",
        )
    candidates, states = [], []
    for each in known:
        asked: Answering = (upstream := upstreams[each.upstream])
        queue = None
        if each.capacity is not None:
            queue = FairQueue(max(1, each.capacity // shared.workers), model.queue)
            asked = Admitted(asked, model, Admission(queue, shared.now), shared.now)
        key = upstream.key if isinstance(upstream, HasKey) else str
        candidates.append(Candidate(each.upstream, each.model, asked, each.price, model.fallback.breaker, key))
        states.append((candidates[-1], queue))
    shared.states.take(model.name, states)
    answering: Answering = Accounted(Failover(candidates, model.fallback, shared.now), model, shared.budgets)
    if model.checks_schema:
        answering = SchemaChecked(answering)
    if model.cache is None:
        return answering
    semantic = None
    if model.cache.similar is not None:
        semantic = SemanticCache(partial(shared.encoder, model.cache.encoder), model.cache.similar)
    version = blake2b(msgspec.json.encode(model), digest_size=16).hexdigest()
    return Cached(answering, model.cache, version, shared.now, semantic, shared.erasures)
