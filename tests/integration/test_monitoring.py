"""The monitor over what really holds its data: segments compacted into Delta, labels in Delta, the catalog."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from kit.worlds import bundle, normal_reference, prediction, sketching
from mainspring.core.catalog import metadata, open_engine
from mainspring.core.expr import col
from mainspring.core.locks import FileLocks
from mainspring.core.schema import DType
from mainspring.core.time import DAY, HOUR, ManualClock, format_instant
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.ingest import Ingestor
from mainspring.data.model import Source
from mainspring.features.model import Entity, Observations
from mainspring.ledger.adapters.lake import LakePredictions
from mainspring.ledger.adapters.segments import SegmentLog
from mainspring.monitoring.adapters.catalog import CatalogMonitors
from mainspring.monitoring.adapters.lake import LakeSketches
from mainspring.monitoring.joins import label_rows
from mainspring.monitoring.window_updates import WindowUpdates
from mainspring.training.label import Label

START = 1_372_636_800_000_000  # 2013-07-01
COLUMNS = ["View.a", "View.b"]
ROWS = 800

flight = Entity("flight", keys={"flight": DType.String})
schedule = Source("schedule", schema={"flight": DType.String}, event_time="planned")
flights = Observations(schedule, keys=[flight], at=col("planned"))
arrivals = Source(
    "arrivals", schema={"flight": DType.String, "late": DType.Boolean}, event_time="landed", recorded_time="reported"
)


def test_two_days_of_predictions_and_their_late_labels(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    truth, scores, at = rng.random(ROWS) < 0.3, rng.random(ROWS), START + np.arange(ROWS) * (2 * DAY // ROWS)
    lake, locks, clock = DeltaLake(tmp_path / "lake"), FileLocks(tmp_path / "locks"), ManualClock(START)
    engine = open_engine(f"sqlite:///{tmp_path / 'catalog.db'}")
    metadata.create_all(engine)

    log = SegmentLog(tmp_path / "segments")
    log.append(
        [
            # "View.b" moves up half a standard deviation on both days.
            prediction(
                i, int(at[i]), float(scores[i]),
                features={"View.a": float(rng.normal()), "View.b": float(rng.normal() + 0.5), "View.kind": "a"},
            )
            for i in range(ROWS)
        ]
    )  # fmt: skip
    log.close()
    reference = normal_reference(COLUMNS, rng)
    del reference.columns["View.kind"]
    sketches = LakeSketches(lake)
    predictions = LakePredictions(
        tmp_path / "segments", lake, locks, observer=sketching(sketches, lambda _: bundle(reference))
    )
    assert predictions.compact() == ROWS

    def started() -> WindowUpdates:
        return WindowUpdates(
            predictions,
            CatalogMonitors(engine),
            sketches,
            labels=lambda endpoint: label_rows([Label(arrivals.late)], flights, lake.scan, lake.appended),
            load=lambda digest: bundle(reference),
            clock=clock,
            locks=locks,
            window_us=DAY,
        )

    monitor = started()

    def land(rows: range, batch: str) -> None:
        Ingestor(lake, locks, clock).ingest(
            arrivals,
            [
                {
                    "flight": f"f{i}",
                    "late": bool(truth[i]),
                    "landed": format_instant(int(at[i]) + 2 * HOUR),
                    "reported": format_instant(int(at[i]) + 3 * HOUR),
                }
                for i in rows
            ],
            keyings={"flight": ("flight",)},
            batch_id=batch,
        )

    land(range(0, ROWS, 2), "even")
    clock.set(START + 2 * DAY)
    first, second = monitor.run("late")
    assert (first.predictions, second.predictions) == (ROWS // 2, ROWS // 2)
    visible = [i for i in range(0, ROWS, 2) if at[i] + 3 * HOUR <= clock.now()]
    assert first.labels + second.labels == len(visible)
    assert first.labels == ROWS // 4
    assert first.lag_p50_s == 3 * 3600
    half = list(range(0, ROWS // 2, 2))
    assert first.quality["auc"] == pytest.approx(roc_auc_score(truth[half], scores[half]), abs=1e-12)
    assert {each.column for each in second.columns if each.alert} == {"View.b"}

    land(range(1, ROWS, 2), "odd")
    land(range(1, ROWS, 2), "odd")  # the same again changes nothing
    clock.set(START + 10 * DAY)
    monitor.run("late")
    again = CatalogMonitors(engine).windows("late")[0]
    assert (again.labels, again.coverage) == (ROWS // 2, 1.0)
    assert again.quality["auc"] == pytest.approx(roc_auc_score(truth[: ROWS // 2], scores[: ROWS // 2]), abs=1e-12)

    # What comes while nobody looks is counted once by whoever looks next.
    log = SegmentLog(tmp_path / "segments")
    log.append([prediction(ROWS, START + 1, features={"View.a": 0.0, "View.b": 0.0, "View.kind": "a"})])
    log.close()
    predictions.compact()
    for _ in range(2):
        started().run("late")
        first, second = CatalogMonitors(engine).windows("late")[:2]
        assert (first.predictions, first.labels, second.predictions) == (ROWS // 2 + 1, ROWS // 2, ROWS // 2)
