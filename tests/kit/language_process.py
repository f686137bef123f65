"""A gateway for language models in a process of its own: `python -m kit.language_process UPSTREAM [FOLDER]`.

It serves `assistant`, `cached`, `brief`, which has a second for an answer, and `limited`, whose callers have a budget
of tokens in `FOLDER`. It says where.
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
from mainspring.core.environment import for_child
from mainspring.core.settings import Limits, UpstreamServer
from mainspring.llm.answering import Shared, assemble
from mainspring.llm.health import BreakerRule
from mainspring.llm.limits import AnswerCache, Fallback
from mainspring.llm.machine_budgets import MachineBudgets
from mainspring.security.quota import Quota

MIB = 1 << 20
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
def started(upstream: str, folder: Path | None = None) -> Iterator[LanguageProcess]:
    """Run one until the end of the block."""
    arguments = [upstream] if folder is None else [upstream, str(folder)]
    with subprocess.Popen(
        [sys.executable, "-m", "kit.language_process", *arguments],
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


async def _serve(upstream: str, folder: str) -> None:
    budgets = MachineBudgets.within(Path(folder)) if folder else Shared().budgets
    servers = {"local": UpstreamServer("local", upstream)}
    kit = Kit(max_body_bytes=8 * MIB, limits=Limits(body_us=1_000_000))
    put_together = partial(assemble, shared=Shared(budgets=budgets))
    async with language_gateway(servers, *_MODELS, put_together=put_together, kit=kit) as gateway:
        print(gateway.url, gateway.key, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""))
