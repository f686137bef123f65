"""Held-out rows as a version's first history: sums by period and segment, and estimates from its first window."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from kit.worlds import bundle
from mainspring.core.errors import NotFound
from mainspring.core.time import DAY, HOUR
from mainspring.monitoring.quality.held_out import FEWEST_PERIODS, MOST_PERIODS, HeldOutQuality
from mainspring.monitoring.quality.reports import estimated
from mainspring.monitoring.quality.table import Key
from mainspring.registry.model import Bundle
from mainspring.stats.quality_figures import figures
from mainspring.stats.quality_sums import Sums, scores_summed
from mainspring.stats.reference import profile
from mainspring.training.bundling import parquet_file


def trained(rows: int = 4_000, days: float = 20.0, **changes: Any) -> tuple[Bundle, np.ndarray, np.ndarray]:
    """Return a bundle with held-out rows, of an over-confident score, with the scores and labels of these."""
    rng = np.random.default_rng(1)
    likely = rng.random(rows)
    score, label = np.clip(1.5 * likely - 0.25, 0, 1), (rng.random(rows) < likely).astype(float)
    at = (np.arange(rows) * days * DAY / rows).astype(np.int64)
    columns = {
        "View.carrier": pa.array(np.where(np.arange(rows) % 3, "UA", "AA")),
        "_at": pa.array(at, pa.timestamp("us", tz="UTC")),
        "_label": pa.array(label),
        "_scores": pa.array([[each] for each in score], pa.list_(pa.float64())),
        **changes,
    }
    table = pa.table({name: column for name, column in columns.items() if column is not None})
    made = bundle()
    return Bundle(made.digest, made.manifest, {"holdout.parquet": parquet_file(table)}), score, label


def test_held_out_rows_are_cut_into_periods_of_about_the_windows_length() -> None:
    made, score, label = trained()
    held_out = HeldOutQuality(lambda _: made)
    days = held_out.periods("d1", "", DAY)
    assert len(days) == 20
    assert (days[:, :, 0].sum(), days[:, :, 1].sum()) == (4_000, label.sum())
    assert np.allclose(days.sum(axis=0)[:, 4:], scores_summed(score)[:, 4:])
    assert len(held_out.periods("d1", "", 100 * DAY)) == FEWEST_PERIODS
    assert len(held_out.periods("d1", "", HOUR)) == MOST_PERIODS


def test_bins_of_the_features_that_matter_have_their_own_quality_too() -> None:
    made, score, label = trained(**{"View.hour": pa.array(np.arange(4_000) % 64)})
    assert HeldOutQuality(lambda _: made).crossed("d1") == {}  # of an older release
    reference = profile({"View.carrier": ["UA", "AA"] * 32, "View.hour": [float(i) for i in range(64)]})
    reference = msgspec.structs.replace(reference, crossed=("View.carrier", "View.hour"))
    files = {**made.files, "reference.json": msgspec.json.encode(reference)}
    found = HeldOutQuality(lambda _: Bundle("d1", made.manifest, files)).crossed("d1")
    assert len(found) == 2 + 4 + 2 * 4
    [name] = [name for name, _ in found if name.startswith("View.carrier=AA and View.hour=over")]
    mine = (np.arange(4_000) % 3 == 0) & (np.arange(4_000) % 64 >= 48)
    assert found[name, ""]["scored"] == mine.sum()
    assert found[name, ""]["squared"] == pytest.approx(((score - label)[mine] ** 2).sum())


def test_segments_of_held_out_rows_have_their_own_quality() -> None:
    made, score, label = trained()
    found = HeldOutQuality(lambda _: made).segments("d1", ("View.carrier", "View.unknown"))
    assert {name for name, _ in found} == {"View.carrier=AA", "View.carrier=UA"}
    brier = figures("binary", [found["View.carrier=AA", ""]])["brier"].value
    assert brier == pytest.approx(((score - label) ** 2)[::3].mean())


def test_several_classes_and_several_labels_have_sums_too() -> None:
    rng = np.random.default_rng(2)
    classes = rng.dirichlet([1, 1, 1], 600)
    names = ("weather", "crew", "traffic")
    lists = pa.array(classes.tolist(), pa.list_(pa.float64()))
    made, _, _ = trained(600, _label=pa.array([names[k] for k in classes.argmax(axis=1)]), _scores=lists)
    several = msgspec.structs.replace(made.manifest, task="multiclass", outputs=names)
    periods = HeldOutQuality(lambda _: Bundle("d1", several, made.files)).periods("d1", "", DAY)
    assert periods[:, :, 1].sum() == periods[:, :, 0].sum() == 600  # the likeliest class is the true one

    truth = classes + 0.1
    struct = pa.StructArray.from_arrays([pa.array(column) for column in truth.T], names=list(names))
    made, _, _ = trained(600, _label=struct, _scores=lists)
    numbers = msgspec.structs.replace(made.manifest, task="regression", outputs=names)
    reference = profile({name: classes[:, place] for place, name in enumerate(names)})
    files = {**made.files, "reference.json": msgspec.json.encode(reference)}
    held_out = HeldOutQuality(lambda _: Bundle("d1", numbers, files))
    assert held_out.periods("d1", "crew", DAY)[:, :, 1].sum() == pytest.approx(60)  # absolute errors
    assert held_out.periods("d1", "", DAY).size == 0


def test_a_bundle_without_predictions_beside_its_held_out_rows_or_that_is_gone_has_none() -> None:
    old, _, _ = trained(_scores=None)
    assert HeldOutQuality(lambda _: old).periods("d1", "", DAY).size == 0
    assert HeldOutQuality(lambda _: old).segments("d1", ("View.carrier",)) == {}
    assert HeldOutQuality(lambda _: bundle()).periods("d1", "", DAY).size == 0

    def gone(digest: str) -> Bundle:
        raise NotFound(f"There is no bundle {digest}.")

    assert HeldOutQuality(gone).periods("d1", "", DAY).size == 0
    assert HeldOutQuality(gone).segments("d1", ("View.carrier",)) == {}
    assert HeldOutQuality(gone).crossed("d1") == {}


def test_a_version_has_an_estimate_with_an_interval_from_its_first_window() -> None:
    made, _, _ = trained()
    rng = np.random.default_rng(4)
    likely = rng.random(300)
    score, label = np.clip(1.5 * likely - 0.25, 0, 1), rng.random(300) < likely
    first = Sums.nothing()
    first.bins[:] = scores_summed(score)
    sums = {Key("1", "d1", 40 * DAY, "", "", 0, "binary"): first}
    window = [(40 * DAY, 41 * DAY)]
    assert estimated(sums, window, 41 * DAY, DAY) == {}
    found = estimated(sums, window, 41 * DAY, DAY, HeldOutQuality(lambda _: made).periods)
    brier = found["1", "", 40 * DAY]["brier"]
    assert brier.errors == 20
    assert brier.low is not None
    assert brier.high is not None
    assert brier.low < ((score - label) ** 2).mean() < brier.high
    few = {Key("1", "d1", 40 * DAY, "", "", 0, "binary"): Sums(first.totals, scores_summed(score[:30]))}
    wide = estimated(few, window, 41 * DAY, DAY, HeldOutQuality(lambda _: made).periods)["1", "", 40 * DAY]["brier"]
    assert wide.high - wide.low > 1.5 * (brier.high - brier.low)  # of 30 rows more is by chance
