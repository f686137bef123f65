"""Usage of language models: numbers for Prometheus, and rows by key, team and model for the table (`usage_table`).

Labels of metrics are language models and upstreams, which are declared, so a scrape never grows with callers. The table
has keys and groups; nothing of a prompt or an answer is in either.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import TypeVar

import msgspec
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from mainspring.core.errors import MainspringError
from mainspring.core.time import DAY, MINUTE, SECOND, Clock
from mainspring.llm.model import (
    Attempt,
    Call,
    ChatReply,
    ChatRequest,
    EmbeddingsReply,
    EmbeddingsRequest,
    Events,
    Outcome,
    Usage,
)
from mainspring.llm.ports import Answering
from mainspring.llm.usage_table import UsageRow, UsageTable, Used
from mainspring.security.quota import MILLIONTHS
from mainspring.serving.plane.metrics import Histogram
from mainspring.serving.plane.uses import Uses
from mainspring.serving.protocol.asked import Outside

FOLDER = "llm-usage"
_FIRST_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_PACES = (1.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
FAILED, LEFT, LOST = "failed", "left", "lost"
T = TypeVar("T")
_MOST_ROWS = 4096  # of a minute; further callers are counted together
_Place = tuple[int, str, str, str, tuple[str, ...]]  # of a row: its day, key, model, upstream and teams


class _Numbers:
    """The numbers of one language model at one upstream."""

    __slots__ = ("cost", "first", "hedged", "pace", "queued_us", "requests", "tokens")

    def __init__(self) -> None:
        self.requests: dict[str, int] = defaultdict(int)  # by how they were answered
        self.tokens = {"prompt": 0, "cached": 0, "completion": 0}
        self.cost = self.hedged = self.queued_us = 0
        self.first, self.pace = Histogram(_FIRST_S), Histogram(_PACES)


class Usages:
    """The usage of one gateway process.

    Args:
        folder: Where its table is; `None` for none.
        clock: The time of the world.
        uses: Gets what callers had of this process, for its costs; by default counts that nobody reads.
    """

    def __init__(self, folder: Path | None, clock: Clock, uses: Uses | None = None) -> None:
        self._uses = uses or Uses(None, 0)
        self._table = None if folder is None else UsageTable(folder)
        self._clock = clock
        self._numbers: dict[tuple[str, str], _Numbers] = {}
        self._guarded: Counter[tuple[str, str, str]] = Counter()  # of model, rule of its guard, outcome
        self._rows: dict[_Place, Used] = {}
        self._changed: set[_Place] = set()  # since they were last encoded
        self._lines: dict[_Place, bytes] = {}
        self._since = 0  # when the first of them was noted

    def note(self, model: str, call: Call, ended: int, fault: str = "") -> None:
        """Count a request that is over.

        Args:
            ended: Monotonic, as `call.begun`.
            fault: "failed" where its answer is none or broke off, "left" where its caller did.
        """
        outcome, usage = call.outcome, call.outcome.usage
        numbers = self._numbers.get((model, outcome.upstream))
        if numbers is None:
            numbers = self._numbers[model, outcome.upstream] = _Numbers()
        for each in outcome.unheard:
            self._note_unheard(model, call, each)
        how = fault or outcome.cut or outcome.cached or "answered"
        numbers.requests[how] += 1
        numbers.queued_us += outcome.queued_us
        numbers.hedged += outcome.hedged
        for (rule, treatment), count in outcome.guarded.items():
            self._guarded[model, rule, treatment] += count
        answer_us = 0
        if usage is not None:
            tokens = numbers.tokens
            tokens["prompt"] += usage.prompt
            tokens["cached"] += usage.cached
            tokens["completion"] += usage.completion
            numbers.cost += outcome.micros
        if not fault and outcome.first_us:
            numbers.first.observe(outcome.first_us / SECOND)
            answer_us = max(0, ended - call.begun - outcome.first_us)
            if usage is not None and answer_us:
                numbers.pace.observe(usage.completion * SECOND / answer_us)
        self._note_had(model, call, 1, usage, outcome.micros)
        if self._table is None or (fault and usage is None):
            return
        used = self._used(call, model, outcome.upstream)
        if usage is not None:
            used.prompt += usage.prompt
            used.completion += usage.completion
            used.micros += outcome.micros
        if outcome.counted:
            used.counted += 1
        if not fault:
            used.requests += 1
            used.first_us += outcome.first_us
            used.answer_us += answer_us
            used.streamed += usage.completion if usage is not None and answer_us else 0
            if outcome.cached:
                used.cached += 1

    def _note_unheard(self, model: str, call: Call, attempt: Attempt) -> None:
        """Count what an answer cost that nobody waited for, beside the call that it was made for."""
        usage = attempt.usage
        if usage is None:
            return
        numbers = self._numbers.get((model, attempt.upstream))
        if numbers is None:
            numbers = self._numbers[model, attempt.upstream] = _Numbers()
        numbers.requests[LOST] += 1
        numbers.tokens["prompt"] += usage.prompt
        numbers.tokens["cached"] += usage.cached
        numbers.tokens["completion"] += usage.completion
        numbers.cost += attempt.micros
        self._note_had(model, call, 0, usage, attempt.micros)
        if self._table is not None:
            used = self._used(call, model, attempt.upstream)
            used.prompt += usage.prompt
            used.completion += usage.completion
            used.micros += attempt.micros

    def _note_had(self, model: str, call: Call, requests: int, usage: Usage | None, micros: int) -> None:
        had = self._uses.lane("", "", model).of(call.caller)
        had.requests += requests
        if usage is not None:
            had.prompt += usage.prompt
            had.completion += usage.completion
            had.micros += micros

    def _used(self, call: Call, model: str, upstream: str) -> Used:
        """Return the row of a call, which is about to change."""
        now, groups = self._clock.now(), call.caller.groups
        teams = tuple(sorted(groups)) if groups else ()
        place = (now - now % DAY, call.caller.id, model, upstream, teams)
        used = self._rows.get(place)
        if used is None:
            if not self._rows:
                self._since = now
            if len(self._rows) >= _MOST_ROWS:
                place = (place[0], "", model, upstream, ())
            used = self._rows.setdefault(place, Used())
        self._changed.add(place)
        return used

    async def flush(self) -> None:
        """Write what was counted since the last time to the table. Do not call it again before it has ended.

        Raises:
            StorageFull: There is no space; it is kept for the next time.
        """
        if self._table is None or not self._rows:
            return
        now = self._clock.now()
        seal = not 0 <= now - self._since < MINUTE
        if not self._changed and not seal:
            return
        changed, self._changed = self._changed, set()
        for place in changed:
            self._lines[place] = _encoded(place, self._rows[place])
        lines = list(self._lines.values())
        taken = self._rows
        if seal:
            self._rows, self._lines = {}, {}
        try:
            await asyncio.to_thread(self._table.write, lines, now, seal=seal)
        except MainspringError:
            self._changed |= changed
            if seal:
                for place, used in taken.items():
                    self._rows.setdefault(place, Used()).add(used)
                self._changed |= self._rows.keys()
                self._since = now
            raise

    def close(self) -> None:
        """Let go of the table's file."""
        if self._table is not None:
            self._table.close()

    def metrics(self) -> Iterator[Metric]:
        """Yield the families for Prometheus."""
        labels = ["model", "upstream"]
        requests = CounterMetricFamily(
            "mainspring_llm_requests", "Requests of language models, by how they ended.", labels=[*labels, "outcome"]
        )
        tokens = CounterMetricFamily("mainspring_llm_tokens", "Tokens that were charged.", labels=[*labels, "kind"])
        cost = CounterMetricFamily("mainspring_llm_cost", "Cost in the project's currency.", labels=labels)
        hedged = CounterMetricFamily("mainspring_llm_hedges", "Requests with a second upstream.", labels=labels)
        queued = CounterMetricFamily("mainspring_llm_queued_seconds", "Time in fair queues.", labels=labels)
        first = HistogramMetricFamily("mainspring_llm_first_token_seconds", "Time to the first token.", labels=labels)
        pace = HistogramMetricFamily("mainspring_llm_tokens_per_second", "Tokens a second of an answer.", labels=labels)
        for key, numbers in self._numbers.items():
            of = list(key)
            for how, count in numbers.requests.items():
                requests.add_metric([*of, how], float(count))
            for kind, count in numbers.tokens.items():
                tokens.add_metric([*of, kind], float(count))
            cost.add_metric(of, numbers.cost / MILLIONTHS)
            hedged.add_metric(of, float(numbers.hedged))
            queued.add_metric(of, numbers.queued_us / SECOND)
            first.add_metric(of, *numbers.first.cumulative())
            pace.add_metric(of, *numbers.pace.cumulative())
        if self._numbers:
            yield from (requests, tokens, cost, hedged, queued, first, pace)
        guards = CounterMetricFamily(
            "mainspring_llm_guard_acts", "Acts of guards.", labels=["model", "rule", "outcome"]
        )
        for place, count in self._guarded.items():
            guards.add_metric(list(place), float(count))
        if self._guarded:
            yield guards


class Watched:
    """Answers, and counts each answer when it is over.

    Args:
        now: The clock of `Call.begun`.
        over: Gets each call at its end, as a span describes it.
    """

    def __init__(
        self,
        answering: Answering,
        model: str,
        usages: Usages,
        now: Callable[[], int],
        over: Callable[[Outside], None] | None = None,
    ) -> None:
        self._inner, self._model, self._usages, self._now = answering, model, usages, now
        self._over = over

    async def chat(self, request: ChatRequest, call: Call) -> ChatReply:
        return await self._whole(self._inner.chat(request, call), call, "chat")

    async def embed(self, request: EmbeddingsRequest, call: Call) -> EmbeddingsReply:
        return await self._whole(self._inner.embed(request, call), call, "embeddings")

    async def stream(self, request: ChatRequest, call: Call) -> AsyncGenerator[Events, None]:
        fault = LEFT
        try:
            async with aclosing(self._inner.stream(request, call)) as events:
                async for batch in events:
                    if not call.outcome.first_us:
                        call.outcome.first_us = max(1, self._now() - call.begun)
                    yield batch
            fault = ""
        except Exception:
            fault = FAILED
            raise
        finally:
            self._end(call, "chat", fault, self._now())

    async def _whole(self, answer: Awaitable[T], call: Call, operation: str) -> T:
        fault, ended = LEFT, 0
        try:
            found = await answer
            fault, ended = "", self._now()
            call.outcome.first_us = max(1, ended - call.begun)
            return found
        except Exception:
            fault = FAILED
            raise
        finally:
            self._end(call, operation, fault, ended or self._now())

    def _end(self, call: Call, operation: str, fault: str, now: int) -> None:
        self._usages.note(self._model, call, now, fault)
        if self._over is not None:
            name = f"{operation} {self._model}"
            self._over(Outside(name, call.begun, now, described(operation, self._model, call.outcome), fault))


def described(operation: str, model: str, outcome: Outcome) -> dict[str, str | int | float]:
    """Return the attributes of a call's span: by OpenTelemetry's conventions for generative AI, without any of what was
    asked or answered."""
    found: dict[str, str | int | float] = {
        "gen_ai.operation.name": operation,
        "gen_ai.request.model": model,
        "mainspring.llm.attempts": outcome.attempts,
        "mainspring.llm.queued_us": outcome.queued_us,
    }
    if outcome.upstream:
        found |= {"gen_ai.provider.name": outcome.upstream, "gen_ai.response.model": outcome.model}
    if outcome.usage is not None:
        found["gen_ai.usage.input_tokens"] = outcome.usage.prompt
        found["gen_ai.usage.output_tokens"] = outcome.usage.completion
        found["mainspring.llm.cost"] = outcome.micros / MILLIONTHS
    if outcome.first_us:
        found["mainspring.llm.first_token_us"] = outcome.first_us
    if outcome.cached or outcome.cut:
        found["mainspring.llm.outcome"] = outcome.cached or outcome.cut
    return found


def _encoded(place: _Place, used: Used) -> bytes:
    day, key, model, upstream, teams = place
    return msgspec.json.encode(UsageRow(day=day, key=key, model=model, upstream=upstream, teams=teams, used=used))
