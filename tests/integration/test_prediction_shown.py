"""`mainspring predictions show`: values as a person writes them, instants as times."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from kit import prefork
from mainspring.ledger.conformance import record_persons, recorder
from mainspring.ledger.model import Asked, Assigned, Log
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


def command(root: Path, *arguments: str) -> str:
    program = [prefork.programs() / "mainspring", "predictions", "show", "--project", str(root)]
    return subprocess.run([*program, *arguments], capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.parametrize(
    ("id_", "withheld", "said"),
    [("p1", "encrypted", "encrypted; show it with --reveal"), ("p2", "left out", "not logged")],
)
def test_it_is_said_what_became_of_personal_values(tmp_path: Path, id_: str, withheld: str, said: str) -> None:
    (tmp_path / "mainspring.toml").write_text('name = "shop"\nmodules = []\n')
    project = open_project(load_settings(tmp_path, environment={}))
    record_persons(recorder(project.prediction_log), 1)
    record_persons(recorder(project.prediction_log, Log(personal="leave out")), 2)
    project.prediction_log.close()
    document = json.loads(command(tmp_path, id_, "--json"))
    assert (document["personal"], document["withheld"]) == (["email", "town", "Person.age"], withheld)
    assert "sealed" not in document
    lines = [" ".join(line.split()) for line in command(tmp_path, id_).splitlines()]
    assert [line for line in lines if line.startswith("personal: ")] == [
        f"personal: {name} {said}" for name in document["personal"]
    ]


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
        assigned=[Assigned("r1", 0.05, 77)],
    )
    project.prediction_log.close()

    def run(*options: str) -> str:
        return command(tmp_path, "p1", *options)

    lines = [" ".join(line.split()) for line in run().splitlines()]
    assert "assigned by rollout r1, with probability 0.05" in lines
    assert {"keys: shop null", "request: old true", "request: since 2024-06-28T12:00:00Z"} <= set(lines)
    assert json.loads(run("--json"))["request"] == {
        "since": "2024-06-28T12:00:00Z",
        "old": True,
        "amount": 1_719_576_000_000_000,
    }
    (tmp_path / "visited.py").write_text("import nothing_like_that\n")
    assert json.loads(run("--json"))["request"]["since"] == 1_719_576_000_000_000
