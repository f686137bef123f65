"""The table of an endpoint's windows: what drifted in one, and what is an alert, are two columns."""

from __future__ import annotations

from pathlib import Path

import msgspec

from kit.terminal import in_a_terminal
from mainspring.core.time import DAY, parse_instant
from mainspring.monitoring.figures import empty_window
from mainspring.monitoring.model import ColumnDrift
from mainspring.project import open_project
from mainspring.project.settings import load_settings

MODULE = """\
import mainspring as ms

card = ms.Entity("card", keys={"card": ms.String})
pay = ms.Source("pay", schema={"card": ms.String, "fraud": ms.Boolean}, event_time="at")
seen = ms.Observations(pay, keys=[card], at=ms.col("at"))

@ms.feature_view(entity=card, source=pay)
class Card:
    n_1h = ms.count(window="1h")

@ms.model("fraud", observations=seen, features=[Card], label=pay.fraud, task="binary")
def train(data, run):
    ...

ms.Endpoint("fraud", model="fraud@champion")
"""


def column(name: str, *, drifted: bool, alert: bool = False) -> ColumnDrift:
    return ColumnDrift(
        column=name, ks=0.5, shift_sd=1.0, null_share=0.0, p_value=0.0, q_value=0.0, drifted=drifted, alert=alert
    )


def test_as_many_columns_drifted_as_in_the_json(tmp_path: Path) -> None:
    (tmp_path / "mainspring.toml").write_text('name = "pay"\nmodules = ["watched_pay"]\n')
    (tmp_path / "watched_pay.py").write_text(MODULE)
    project = open_project(load_settings(tmp_path, environment={}))
    start = parse_instant("2026-03-01T00:00:00Z")
    window = msgspec.structs.replace(
        empty_window("fraud", start, start + DAY, start + 9 * DAY),
        predictions=7,
        columns=(column("Card.a", drifted=True), column("Card.b", drifted=True, alert=True)),
        score=column("probability", drifted=True),
    )
    project.monitors.save([window])
    project.close()
    lines = in_a_terminal(80, tmp_path, "monitor", "fraud")
    assert max(map(len, lines)) <= 80
    head = next(line for line in lines if line.startswith("window from"))
    assert head.split() == ["window", "from", "predictions", "p99", "ms", "labels", "quality", "drifted"]
    row = next((line for line in lines if line.startswith("2026-03-01")), "")
    assert row, lines
    assert row.split()[:2] == ["2026-03-01", "7"]
    assert row[head.index("drifted") :].strip() == "3 of 3"
    assert "now most Card.a, Card.b, probability. Seasons do that: no alarm." in " ".join(lines)
    assert any("No incident is open." in line or "mainspring incidents show" in line for line in lines)
