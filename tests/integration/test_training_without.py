"""A training without some rows is one on data into which they were never ingested, and says so."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import mainspring as ms
from kit.bakery import START, Bakery, Order, late_model, outcomes, regress, rows
from mainspring.core.errors import Invalid
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import DAY
from mainspring.data.ingest import Ingestor
from mainspring.data.without import read
from mainspring.training.runs.provenance import pinned_scan
from mainspring.training.sets.assemble import held_out_again

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")]
UNTIL = START + 18 * DAY


def poisoned(bakery: Bakery) -> None:
    """Turn round the labels of the first ten days by newer outcomes, in a batch of their own."""
    turned = [{**row, "late": not row["late"]} for row in rows()["outcomes"] if row["order"] < 1440]
    Ingestor(bakery.lake, MemoryLocks(), bakery.clock).ingest(
        outcomes, turned, keyings={"order": ("order",)}, batch_id="poison"
    )


def held_out(bakery: Bakery, report: Any) -> Any:
    return pq.read_table(io.BytesIO(bakery.bundles.load(report.digest).files["holdout.parquet"]))


def test_a_training_without_a_batch_is_as_if_it_had_never_come(tmp_path: Path) -> None:
    clean, dirty = Bakery(tmp_path), Bakery(tmp_path)
    for each in (clean, dirty):
        each.ingest()
    expected = clean.trainer.train(late_model(regress), since=START, until=UNTIL)
    poisoned(dirty)
    bad = dirty.trainer.train(late_model(regress), since=START, until=UNTIL)
    good = dirty.trainer.train(late_model(regress), since=START, until=UNTIL, without=[read("outcomes@poison")])
    assert bad.metrics["auc"] < 0.5 < expected.metrics["auc"]
    assert good.metrics == expected.metrics
    assert held_out(dirty, good).equals(held_out(clean, expected))
    assert good.notes[0] == "1,411 rows of outcomes were left out: outcomes@poison."
    assert dirty.tracking.get(good.run_id).params["without"] == '["outcomes@poison"]'
    manifest = dirty.bundles.load(good.digest).manifest
    assert manifest.extra["without"] == ["outcomes@poison"]
    assert "without" not in dirty.bundles.load(bad.digest).manifest.extra


def test_it_is_compared_with_the_champion_on_its_own_held_out_rows(tmp_path: Path) -> None:
    bakery = Bakery(tmp_path)
    bakery.ingest()
    champion = bakery.bundles.load(bakery.trainer.train(late_model(regress), since=START, until=UNTIL).digest)
    report = bakery.trainer.train(
        late_model(regress, features=[Order]), since=START, until=UNTIL, without=[read("orders.kind=cake")]
    )
    candidate = bakery.bundles.load(report.digest)
    commit = bakery.snapshots.get(candidate.manifest.dataset_commit)
    again = held_out_again(candidate, champion, [ms.Label(outcomes.late)], partial(pinned_scan, bakery.lake, commit))
    kept = held_out(bakery, report)
    assert np.array_equal(again["_at"].to_numpy(), kept["_at"].to_numpy())
    assert "cake" not in again["Order.kind"].to_pylist()
    assert {"Traffic.visits_1h", "Order.weight"} <= {*again.column_names}


def test_what_the_model_does_not_read_cannot_be_left_out(tmp_path: Path) -> None:
    bakery = Bakery(tmp_path)
    bakery.ingest()
    with pytest.raises(Invalid, match="No rows are read from a source 'visits'"):
        bakery.trainer.train(
            late_model(regress, features=[Order]), since=START, until=UNTIL, without=[read("visits.shop=north")]
        )
