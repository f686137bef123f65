"""A gateway for language models in a process of its own: `python -m kit.language_process UPSTREAM [BUDGETS]`.

It serves `assistant`, `cached`, `brief`, which has a second for an answer, and `limited`, whose callers have a budget
of tokens in `BUDGETS`, a folder or the URL of a Redis. It says where.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from kit.language_gateway import language_gateway, language_model
from kit.serving import Kit
from mainspring.core.circuit_breaker import BreakerRule
from mainspring.core.environment import for_child
from mainspring.core.settings import Limits, UpstreamServer, Url
from mainspring.llm.adapters.redis_budgets import RedisBudgets
from mainspring.llm.answering import Shared, assemble
from mainspring.llm.budgets import Budgets
from mainspring.llm.limits import AnswerCache, Fallback
from mainspring.llm.machine_budgets import MachineBudgets
from mainspring.security.quota import Quota

MIB, PROJECT = 1 << 20, "language"
QUOTA = Quota("tokens", per="month", tokens=100_000, by="all")
_STEADY = Fallback(breaker=BreakerRule(least=1000))
_BRIEF = {"deadline": "1s", "first_event": "1s", "between_events": "1s"}
_MODELS = (
    language_model(fallback=_STEADY),
    language_model("cached", cache=AnswerCache(sampled=True), fallback=_STEADY),
    language_model("brief", fallback=_STEADY, **_BRIEF),
    language_model("limited", quotas=[QUOTA], fallback=_STEADY),
)


@dataclass
class LanguageProcess:
    """The process. `url` has `/v1`; `key` may predict."""

    url: str
    key: str
    process: subprocess.Popen[str]

    def resident(self) -> int:
        """Return the bytes of memory that it has."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def started(upstream: str, budgets: Path | str = "") -> Iterator[LanguageProcess]:
    """Run one until the end of the block."""
    with subprocess.Popen(
        [sys.executable, "-m", "kit.language_process", upstream, str(budgets)],
        cwd=Path(__file__).parents[1],
        env=for_child({}),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            url, key = process.stdout.readline().split()
            yield LanguageProcess(url, key, process)
        finally:
            process.kill()


def _budgets(place: str) -> Budgets:
    if place.startswith("redis:"):
        return RedisBudgets(Url(place), PROJECT)
    return MachineBudgets.within(Path(place)) if place else Shared().budgets


async def _serve(upstream: str, place: str) -> None:
    servers = {"local": UpstreamServer("local", upstream)}
    kit = Kit(max_body_bytes=8 * MIB, limits=Limits(body_us=1_000_000))
    put_together = partial(assemble, shared=Shared(budgets=_budgets(place)))
    async with language_gateway(servers, *_MODELS, put_together=put_together, kit=kit) as gateway:
        print(gateway.url, gateway.key, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""))
