"""Processes that spend one budget at once, one of them killed: what it settled is spent, what it had reserved, too."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from kit.token_spender import AT_ONCE, CALLER, LIMIT, MOST, QUOTA
from kit.waiting import wait_until
from mainspring.core.environment import for_child
from mainspring.core.errors import QuotaExceeded
from mainspring.llm.budgets import Spend
from mainspring.llm.machine_budgets import MachineBudgets

ROOT = Path(__file__).parents[1]
KILLED_AFTER = 100  # bytes


def test_a_killed_process_loses_no_charge_and_its_reservations_are_charged_once(tmp_path: Path) -> None:
    with ExitStack() as ended:

        def spender(number: int) -> subprocess.Popen[str]:
            arguments = [str(tmp_path), str(tmp_path / f"got-{number}"), str(number)]
            made = subprocess.Popen(
                [sys.executable, "-m", "kit.token_spender", *arguments],
                cwd=ROOT, env=for_child({}), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            assert made.stdout is not None
            assert made.stdout.readline() == "ready\n"
            return ended.enter_context(made)

        running = [spender(number) for number in range(2)]
        for each in running:
            assert each.stdin is not None
            each.stdin.write("\n")
            each.stdin.flush()
        wait_until(lambda: (tmp_path / "got-0").stat().st_size > KILLED_AFTER, "a part of the budget", within_s=60)
        running[0].kill()
        for each in running[1:]:
            each.communicate(timeout=60)
            assert each.returncode == 0
        running[0].wait()
    written = 0
    for path in tmp_path.glob("got-*"):
        content = path.read_bytes()
        written += sum(int.from_bytes(content[at : at + 2], "big") for at in range(0, len(content), 2))
    asyncio.run(compared(tmp_path, written))


async def compared(folder: Path, written: int) -> None:
    budgets = MachineBudgets.within(folder)
    left = (await budgets.left((QUOTA,), CALLER, "m"))["tokens"]
    spent = LIMIT - left
    assert 0 <= left <= MOST  # the rest refused the other process's calls
    assert written <= spent <= written + (AT_ONCE + 1) * MOST  # one may have been settled and not written down
    for _ in range(2):  # nothing is charged again
        with pytest.raises(QuotaExceeded):
            await budgets.reserve((QUOTA,), CALLER, "m", Spend(left + 1))
        assert (await budgets.left((QUOTA,), CALLER, "m"))["tokens"] == left
    await budgets.close()
