"""kill -9 of a monitor at every step of a look: each prediction and each label counts once."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from kit import prefork

VICTIM = Path(__file__).parent / "monitor_victim.py"


def test_a_look_that_is_killed_at_any_step_counts_nothing_twice_and_loses_nothing(tmp_path: Path) -> None:
    command = prefork.script(VICTIM, tmp_path)
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True, timeout=400)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, told[-1:]
    assert [each["killed"] for each in told] == [True] * (len(told) - 1) + [False]
    assert len(told) > 6
    whole = told[-1]["windows"]
    assert [(each["predictions"], each["labels"]) for each in whole[:3]] == [(40, 40), (40, 20), (40, 0)]
    assert all(each["windows"] == whole for each in told)
