"""A fine-tuning by LoRA dies at random moments; the adapter that it finishes is that of an undisturbed one."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from kit.depth import deep
from kit.later import later

later("torch")
later("peft")

VICTIM = Path(__file__).with_name("lora_victim.py")


@deep
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", range(2))
def test_the_finished_adapter_is_that_of_an_undisturbed_training(number: int, tmp_path: Path) -> None:
    rng = random.Random(number)
    specs = [f"#{rng.randint(20, 50)}", *(f"#{rng.randint(1, 60)}" for _ in range(4)), "~20"]
    path = os.pathsep.join([str(VICTIM.parents[1]), *sys.path])
    ended = []
    for folder, asked in ((tmp_path / "calm", ["-"]), (tmp_path / "killed", [*specs, "-"])):
        done = subprocess.run(
            [sys.executable, str(VICTIM), str(folder), *asked], capture_output=True, text=True, check=False,
            timeout=500, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        ended.append([line.split() for line in done.stdout.splitlines()])
    [[_, code, _, resumed, digest]] = ended[0]
    assert (code, resumed) == ("0", "0")
    assert ended[1][0][1] == "-9"
    assert {each[1] for each in ended[1]} <= {"-9", "30", "0"}
    assert {rest[1] for _, code, _, *rest in ended[1] if code == "0"} == {digest}
