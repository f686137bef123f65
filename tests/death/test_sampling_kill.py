"""kill -9 of the worker at every step of a look at the gateway processes: each request counts once."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from kit import prefork

VICTIM = Path(__file__).parent / "sampling_victim.py"


def test_a_look_that_is_killed_at_any_step_counts_nothing_twice_and_loses_nothing(tmp_path: Path) -> None:
    command = prefork.script(VICTIM, tmp_path)
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=200)
    told = json.loads(done.stdout)
    assert told["ended"] == 0
    assert told["kills"] >= 5
    assert sum(told["stored"]) == told["counted"] == 10 * (told["kills"] + 1)
