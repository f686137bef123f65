"""kill -9 of a rollout's controller at every point between two effects: it ends as if nobody had been killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

VICTIM = Path(__file__).parent / "rollout_victim.py"


def test_a_rollout_whose_controller_is_killed_at_any_point_ends_as_it_would_have(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(VICTIM.parents[1]), *sys.path])}
    done = subprocess.run(
        [sys.executable, str(VICTIM), str(tmp_path)],
        check=False, env=environment, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert not [each for each in told if "failed" in each], told
    points = {case: [each["point"] for each in told if each["case"] == case] for case in ("bad", "good")}
    assert {"begin", "decided", "stored", "published", "recorded", ""} <= set(points["bad"])
    assert {"promoting", "promoted", "done", ""} <= set(points["good"])
    for each in told:
        good = each["case"] == "good"
        assert each["status"] == ("done" if good else "rolled back"), each
        assert each["champion"] == ("2" if good else "1"), each
        assert each["moves"] == (2 if good else 1), each
        assert each["arms"] == ({"2": 1.0} if good else {"1": 1.0}), each
        assert each["between"] in ({"1": 0.5, "2": 0.5}, each["arms"]), each
        assert each["numbers"] == list(range(1, len(each["numbers"]) + 1)), each
        decisions = ["start", "begin", "promote", "done"] if good else ["start", "begin", "roll back"]
        assert each["decisions"] == decisions, each
        assert each["audited"] == sorted(decisions), each
        assert each["requests"] == [300, 300], each
