"""Usage of language models: numbers for Prometheus, and a table by key, team and model in files that outlive a process.

Labels of metrics are language models and upstreams, which are declared, so a scrape never grows with callers. The table
has keys and groups by the month; nothing of a prompt or an answer is in either.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import TypeVar

import msgspec
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from mainspring.core.errors import MainspringError
from mainspring.core.files import disk_errors
from mainspring.core.time import DAY, SECOND, Clock, to_datetime
from mainspring.llm.model import Call, ChatReply, ChatRequest, EmbeddingsReply, EmbeddingsRequest, Events, Outcome
from mainspring.llm.ports import Answering
from mainspring.serving.plane.metrics import Histogram
from mainspring.serving.protocol.asked import Outside
from mainspring.serving.quota import MILLIONTHS

FOLDER = "llm-usage"
_FIRST_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_PACES = (1.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
FAILED, LEFT = "failed", "left"
T = TypeVar("T")
_MOST_ROWS = 4096  # that wait to be written; further callers are counted together


class Used(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Sums of answers. Money is in millionths of the currency, times in microseconds.

    Attributes:
        requests: Answers, those of the cache included.
        cached: Answers of the cache, which used nothing.
        counted: Answers whose tokens are our own count.
        first_us: Sum of the times to the first token. `answer_us`: of those after it.
    """

    requests: int = 0
    cached: int = 0
    counted: int = 0
    prompt: int = 0
    completion: int = 0
    micros: int = 0
    first_us: int = 0
    answer_us: int = 0

    def add(self, other: Used) -> None:
        """Add other sums."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class UsageRow(msgspec.Struct, kw_only=True):
    """Use in a part of a day, UTC.

    Attributes:
        day: Its begin, UTC epoch microseconds.
        key: Id of the key, or of the account of a person who signed in. `teams`: its groups.
    """

    day: int
    key: str
    model: str
    upstream: str = ""
    teams: tuple[str, ...] = ()
    used: Used


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
    """

    def __init__(self, folder: Path | None, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        self._numbers: dict[tuple[str, str], _Numbers] = {}
        self._rows: dict[tuple[int, str, str, str, tuple[str, ...]], Used] = {}

    def note(self, model: str, call: Call, ended: int, fault: str = "") -> None:
        """Count a request that is over.

        Args:
            ended: Monotonic, as `call.begun`.
            fault: "failed" where its answer is none or broke off, "left" where its caller did.
        """
        failed = bool(fault)
        outcome, usage = call.outcome, call.outcome.usage
        numbers = self._numbers.get((model, outcome.upstream))
        if numbers is None:
            numbers = self._numbers[model, outcome.upstream] = _Numbers()
        how = fault or outcome.cut or outcome.cached or "answered"
        numbers.requests[how] += 1
        numbers.queued_us += outcome.queued_us
        numbers.hedged += outcome.hedged
        used = Used(requests=int(not failed), cached=int(bool(outcome.cached)), counted=int(outcome.counted))
        if usage is not None:
            numbers.tokens["prompt"] += usage.prompt
            numbers.tokens["cached"] += usage.cached
            numbers.tokens["completion"] += usage.completion
            numbers.cost += outcome.micros
            used.prompt, used.completion, used.micros = usage.prompt, usage.completion, outcome.micros
        if not failed and outcome.first_us:
            numbers.first.observe(outcome.first_us / SECOND)
            used.first_us = outcome.first_us
            used.answer_us = max(0, ended - call.begun - outcome.first_us)
            if usage is not None and used.answer_us:
                numbers.pace.observe(usage.completion * SECOND / used.answer_us)
        if self._folder is None or used == Used():
            return
        now = self._clock.now()
        row = (now - now % DAY, call.caller.id, model, outcome.upstream, tuple(sorted(call.caller.groups)))
        if row not in self._rows and len(self._rows) >= _MOST_ROWS:
            row = (row[0], "", model, outcome.upstream, ())
        self._rows.setdefault(row, Used()).add(used)

    async def flush(self) -> None:
        """Append what is not written yet to the table.

        Raises:
            StorageFull: There is no space; it is kept for the next time.
        """
        if self._folder is None or not self._rows:
            return
        taken, self._rows = self._rows, {}
        try:
            await asyncio.to_thread(_append, self._folder, taken)
        except MainspringError:
            for row, used in taken.items():
                self._rows.setdefault(row, Used()).add(used)
            raise

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
            self._end(call, "chat", fault)

    async def _whole(self, answer: Awaitable[T], call: Call, operation: str) -> T:
        fault = LEFT
        try:
            found = await answer
            fault = ""
            call.outcome.first_us = max(1, self._now() - call.begun)
            return found
        except Exception:
            fault = FAILED
            raise
        finally:
            self._end(call, operation, fault)

    def _end(self, call: Call, operation: str, fault: str) -> None:
        now = self._now()
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


def rows(folder: Path, since: int) -> Iterator[UsageRow]:
    """Yield the rows of days from an instant on. A line that a kill cut off is passed over."""
    for path in sorted(folder.glob("*.jsonl")):
        with path.open("rb") as lines:
            for line in lines:
                try:
                    row = msgspec.json.decode(line, type=UsageRow)
                except msgspec.DecodeError:
                    continue
                if row.day + DAY > since:
                    yield row


def _append(folder: Path, taken: Mapping[tuple[int, str, str, str, tuple[str, ...]], Used]) -> None:
    months: dict[str, list[bytes]] = defaultdict(list)
    for (day, key, model, upstream, teams), used in taken.items():
        row = UsageRow(day=day, key=key, model=model, upstream=upstream, teams=teams, used=used)
        months[f"{to_datetime(day):%Y-%m}"].append(msgspec.json.encode(row) + b"\n")
    for month, lines in months.items():
        path = folder / f"{month}.jsonl"
        with disk_errors(path):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, b"\n" + b"".join(lines))  # after a line that another process's kill cut off
            finally:
                os.close(descriptor)
