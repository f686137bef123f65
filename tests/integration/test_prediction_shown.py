"""`mainspring prediction`: values as a person writes them, instants as times."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from kit import prefork
from mainspring.ledger.model import Asked
from mainspring.ledger.recording import Recorder
from mainspring.project import open_project
from mainspring.project.settings import load_settings

MODULE = """
import mainspring as ms

shop = ms.Entity("shop", keys={"shop": ms.String})
fields = {"shop": ms.String, "since": ms.Timestamp, "late": ms.Boolean}
visits = ms.Source("visits", schema=fields, event_time="came_at")

@ms.request_features
class Visit:
    hour = ms.col("since").hour("UTC")

@ms.model("late", observations=ms.Observations(visits, keys=[shop], at=ms.col("came_at")), features=[Visit],
          label=visits.late, task="binary")
def train(data, run): ...
"""


def test_nulls_truths_and_instants(tmp_path: Path) -> None:
    (tmp_path / "mainspring.toml").write_text('name = "shop"\nmodules = ["visited"]\n')
    (tmp_path / "visited.py").write_text(MODULE)
    project = open_project(load_settings(tmp_path, environment={}))
    Recorder(
        project.prediction_log, endpoint="late", model="late", version="1", digest="d" * 64, keys=("shop",)
    ).record(
        at=1_000,
        ids=["p1"],
        asked=[Asked("key-1", 700, 1, "")],
        sent={"shop": [None], "since": [1_719_576_000_000_000], "old": [True], "amount": [1_719_576_000_000_000]},
        features={"Visit.hour": [12]},
        statuses={},
        outputs={"probability": [0.5]},
    )
    project.prediction_log.close()

    def run(*options: str) -> str:
        command = [prefork.programs() / "mainspring", "prediction", "p1", "--project", str(tmp_path)]
        return subprocess.run([*command, *options], capture_output=True, text=True, timeout=60, check=True).stdout

    lines = [" ".join(line.split()) for line in run().splitlines()]
    assert {"keys: shop null", "request: old true", "request: since 2024-06-28T12:00:00Z"} <= set(lines)
    assert json.loads(run("--json"))["request"] == {
        "since": "2024-06-28T12:00:00Z",
        "old": True,
        "amount": 1_719_576_000_000_000,
    }
    (tmp_path / "visited.py").write_text("import nothing_like_that\n")
    assert json.loads(run("--json"))["request"]["since"] == 1_719_576_000_000_000
