"""A process that spends a budget of tokens: `python -m kit.token_spender FOLDER GOT SEED`.

It writes down what it settled after it did, 2 bytes each, and ends when nothing is left.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

from mainspring.core.errors import QuotaExceeded, Unavailable
from mainspring.llm.budgets import Spend
from mainspring.llm.machine_budgets import MachineBudgets
from mainspring.security.model import KeyScope, Principal
from mainspring.security.quota import Quota

LIMIT, MOST, AT_ONCE = 100_000, 500, 8
QUOTA = Quota("spent-by-many", per="month", tokens=LIMIT, by="all")
CALLER = Principal("k1", "test", frozenset(KeyScope))


async def main() -> None:
    budgets, got, draw = MachineBudgets.within(Path(sys.argv[1])), sys.argv[2], random.Random(int(sys.argv[3]))
    file = os.open(got, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    under_way = [await budgets.reserve((QUOTA,), CALLER, "m", Spend(1))]
    print("ready", flush=True)
    sys.stdin.readline()
    refused = 0
    while refused < 200:
        if len(under_way) < AT_ONCE:
            try:
                under_way.append(await budgets.reserve((QUOTA,), CALLER, "m", Spend(draw.randint(1, MOST))))
            except QuotaExceeded:
                refused += 1
            except Unavailable:
                continue
        if under_way and (refused or len(under_way) == AT_ONCE):
            ended = under_way.pop(draw.randrange(len(under_way)))
            used = Spend(draw.randint(0, ended.most.tokens))
            ended.settle(used)
            os.write(file, used.tokens.to_bytes(2, "big"))


if __name__ == "__main__":
    asyncio.run(main())
