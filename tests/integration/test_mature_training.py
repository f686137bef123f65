"""Training on labels that mature: card payments, of which some are charged back, 5 to 40 days later."""

from __future__ import annotations

import io
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mainspring as ms
from kit.bakery import START, Bakery
from mainspring.core.errors import InvalidData
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import DAY, HOUR, to_datetime
from mainspring.data.ingest import Ingestor
from mainspring.training.model import Model
from mainspring.training.runs.provenance import pinned_scan
from mainspring.training.sets.assemble import held_out_again

DAYS = 120
PAYMENTS = DAYS * 12  # one every two hours

payment = ms.Entity("payment", keys={"payment": ms.Int64})
merchant = ms.Entity("merchant", keys={"merchant": ms.String})
payments = ms.Source(
    "payments", schema={"payment": ms.Int64, "merchant": ms.String, "amount": ms.Float32}, event_time="paid_at"
)
chargebacks = ms.Source(
    "chargebacks",
    schema={"payment": ms.Int64, "merchant": ms.String, "fraud": ms.Boolean},
    event_time="paid_at",
    recorded_time="reported_at",
)


@ms.request_features
class Payment:
    amount = ms.col("amount")


paid = ms.Observations(payments, keys=[merchant, payment], at=ms.col("paid_at"), where=ms.col("amount") > 0)
MATURE = ms.Label(chargebacks.fraud, matures="40d", otherwise=False, entity=payment)


def paid_at(number: int) -> int:
    return START + number * 2 * HOUR


def fraud_model(train: Any, **changed: Any) -> Model:
    settings: dict[str, Any] = {
        "observations": paid, "features": [Payment], "label": MATURE, "task": "binary", "holdout": "20d",
        "gates": [ms.beats("auc")], **changed,
    }  # fmt: skip
    return ms.model("fraud", **settings)(train)


def fitted(data: ms.TrainingSet, run: ms.Run) -> Any:
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    return make_pipeline(SimpleImputer(), LogisticRegression()).fit(data.train.X, data.train.y)


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bakery:
    """Payments of 120 days; every fifth merchant is not known, every 40th payment is of nothing."""
    made = Bakery(tmp_path_factory.mktemp("bank"))
    rng = np.random.default_rng(3)
    rows, told = [], []
    for number in range(PAYMENTS):
        amount = 0.0 if number % 40 == 0 else float(np.float32(rng.gamma(2.0, 20.0)))
        name = None if number % 5 == 0 else f"m{number % 7}"
        rows.append({"paid_at": to_datetime(paid_at(number)), "payment": number, "merchant": name, "amount": amount})
        reported = paid_at(number) + int(rng.integers(5 * DAY, 40 * DAY))
        if rng.random() < 1 / (1 + np.exp(4 - amount / 20)) and reported < START + DAYS * DAY:
            told.append(
                {"paid_at": rows[-1]["paid_at"], "payment": number, "merchant": name, "fraud": True,
                 "reported_at": to_datetime(reported)}
            )  # fmt: skip
    land(made, payments, rows)
    land(made, chargebacks, told)
    return made


def land(bank: Bakery, source: ms.Source, rows: list[dict[str, Any]]) -> None:
    Ingestor(bank.lake, MemoryLocks(), bank.clock).ingest(source, rows, keyings={})


def test_a_part_of_one_class_is_refused_before_the_function_runs(bank: Bakery) -> None:
    """Without maturity, the payments that have a label are those that were charged back."""
    ran: list[str] = []

    def train(data: ms.TrainingSet, run: ms.Run) -> Any:
        ran.append("the function")

    with pytest.raises(InvalidData, match="every one has the label 1; both classes are needed") as refused:
        bank.trainer.train(fraud_model(train, label=ms.Label(chargebacks.fraud, entity=payment)))
    assert "without a label" in refused.value.what
    assert refused.value.fix is not None
    assert 'matures="40d"' in refused.value.fix
    assert ran == []


@pytest.mark.parametrize(
    ("holdout", "until", "message"),
    [
        ("1h", DAYS, r"Of 'fraud': The validation part is empty: \d+ labelled observations .* not mature"),
        ("12h", DAYS, "validation part of 'fraud' has 3 rows and needs 5.*train .* rows from .* of 0.*holdout '12h'"),
        (0.2, 30, r"no labelled observation to train on: \d+ observations are left out: .* not mature \(40d old"),
    ],
)
def test_parts_that_judge_nothing_are_refused_with_counts(bank: Bakery, holdout: Any, until: int, message: str) -> None:
    with pytest.raises(InvalidData, match=message):
        bank.trainer.train(fraud_model(fitted, holdout=holdout), until=START + until * DAY)


def test_the_holdout_is_counted_back_from_the_newest_mature_label(bank: Bakery) -> None:
    report = bank.trainer.train(fraud_model(fitted))
    bundle = bank.bundles.load(report.digest)
    held_out = pq.read_table(io.BytesIO(bundle.files["holdout.parquet"]))
    at = held_out["_at"].cast(pa.int64()).to_numpy()
    labels = bank.lake.scan("chargebacks").rows
    assert labels is not None
    settled = max(labels["_visible_at"].cast(pa.int64()).to_pylist()) - 40 * DAY
    assert settled - 3 * HOUR < at.max() <= settled
    assert at.min() >= at.max() - 20 * DAY
    assert 200 < report.holdout_rows == held_out.num_rows
    assert {"auc", "brier"} <= report.metrics.keys()

    immature = sum(1 for number in range(PAYMENTS) if number % 40 and paid_at(number) > settled)
    assert report.left_out == {"not_mature": immature}  # no unknown merchant lost its label
    assert f"{immature:,} not mature" in report.notes[0]
    params = bank.tracking.get(report.run_id).params
    assert (params["dropped"], params["dropped.not_mature"]) == (str(immature), str(immature))
    assert b"not mature" in bank.tracking.artefact(report.run_id, "notes.txt")
    extra = bundle.manifest.extra
    assert (extra["matures_us"], extra["otherwise"], extra["dropped"]) == (40 * DAY, False, {"not_mature": immature})


def test_a_label_that_changes_after_maturity_changes_no_row(bank: Bakery) -> None:
    """A fraud found after 60 days: the payment was not a fraud as of its maturity, today as then."""
    before = bank.trainer.train(fraud_model(fitted))
    late = {"paid_at": to_datetime(paid_at(3)), "payment": 3, "merchant": "m3", "fraud": True}
    land(bank, chargebacks, [{**late, "reported_at": to_datetime(paid_at(3) + 60 * DAY)}])
    after = bank.trainer.train(fraud_model(fitted))
    assert after.metrics == before.metrics
    assert after.training_rows == before.training_rows
    one, two = (bank.bundles.load(each.digest) for each in (before, after))
    assert one.files["holdout.parquet"] == two.files["holdout.parquet"]
    scan = partial(pinned_scan, bank.lake, bank.snapshots.get(one.manifest.dataset_commit))
    again = held_out_again(one, two, [MATURE], scan)
    assert again.select(["_at", "_label"]).num_rows == before.holdout_rows
