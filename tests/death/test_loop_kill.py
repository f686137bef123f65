"""A training with checkpoints dies at random moments; what it finishes is bit for bit what an undisturbed one does.

The network has all that makes this hard: dropout, batch normalisation, an optimiser with state, a schedule, early
stopping, noise from three generators, and a last batch that is smaller.
"""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

from kit import prefork
from kit.depth import deep, examples
from kit.later import later

later("torch")

ROUNDS = examples(gate=1, deep=3)
KILLS = int(os.environ.get("MAINSPRING_KILLS", str(examples(gate=2, deep=15))))
VICTIM = Path(__file__).with_name("loop_victim.py")


def run(folder: Path, *specs: str) -> list[list[str]]:
    done = subprocess.run(
        prefork.script(VICTIM, folder, *specs, imports="torch"),
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("undisturbed")
    [[_, code, kept, resumed, digest], [*_, again]] = run(folder, "-", "-")
    assert (code, resumed) == ("0", "0")
    assert kept in ("2", "3")  # the newest two, and the best where it is older
    assert digest == again  # a finished training is done anew, and is the same
    return digest


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", range(ROUNDS))
def test_the_finished_weights_are_those_of_an_undisturbed_training(
    number: int, undisturbed: str, tmp_path: Path
) -> None:
    rng = random.Random(number)
    specs = [f"#{rng.randint(1, 60)}"]  # a training that begins anew does come that far
    specs += [
        rng.choice([f"#{rng.randint(1, 150)}", f"#{rng.randint(1, 150)}", f"~{rng.randint(10, 150)}",
                    f"+{rng.uniform(0, 0.4):.3f}"])
        for _ in range(KILLS // ROUNDS - 1)
    ]  # fmt: skip
    ended = run(tmp_path, *specs, "-")
    codes = {spec: code for spec, code, *_ in ended}
    assert (ended[0][1], ended[-1][1]) == ("-9", "0")
    # whichever finished before it could be killed is right, too
    finished = [digest for _, code, _, *rest in ended if code == "0" for digest in rest[1:]]
    assert set(finished) == {undisturbed}
    assert all(code in ("-9", "0") for spec, code in codes.items() if spec[0] in "#+")
    assert all(code in ("30", "0") for spec, code in codes.items() if spec[0] == "~")
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith((".partial", ".corrupt"))]


def test_a_signal_leaves_a_checkpoint_of_the_very_step(undisturbed: str, tmp_path: Path) -> None:
    """SIGTERM at the first write of step 1, 3, 5...: the next goes on from where it came, not from before."""
    *stopped, last = run(tmp_path, *examples(gate=["~12"], deep=["~12", "~40"]), "-")
    assert {each[1] for each in stopped} == {"30"}
    assert last[1] == "0"
    assert int(last[3]) > examples(gate=0, deep=2)
    assert last[4] == undisturbed


@deep
def test_it_does_go_on_from_where_it_was_killed(undisturbed: str, tmp_path: Path) -> None:
    killed, last = run(tmp_path, "#150", "-")
    assert killed[1] == "-9"
    assert int(last[3]) > 4
    assert last[4] == undisturbed
