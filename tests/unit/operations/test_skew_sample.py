"""Differences planted in the served features are counted by feature and kind, exactly; a clean hour has none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mainspring as ms
from kit import serving as serving_kit
from mainspring.core.time import DAY, HOUR, MINUTE, parse_instant, to_datetime
from mainspring.data.adapters.delta import DeltaLake
from mainspring.features.definitions import dump
from mainspring.features.online import OnlineReader
from mainspring.ledger.key_sample import key_hash
from mainspring.ledger.model import Prediction
from mainspring.monitoring.service.skew_table import TABLE, SkewTable
from mainspring.operations.apply import apply
from mainspring.operations.ingest import land
from mainspring.operations.materialize import materialise_views
from mainspring.operations.monitor_query import query
from mainspring.operations.service.skew import AN_HOUR, compare, skew
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings
from mainspring.registry.bundles import FEATURES, seal

START = parse_instant("2024-03-05T10:00:00Z")
MODULE = """\
import mainspring as ms

card = ms.Entity("card", keys={"card": ms.String})
payments = ms.Source("payments", schema={"card": ms.String, "amount": ms.Float64, "shop": ms.String}, event_time="at")


@ms.feature_view(entity=card, source=payments)
class Card:
    amount = ms.last("amount")
    shop = ms.last("shop")
    payments_1d = ms.count(window="1d")
"""
CARDS, KNOWN = 260, 200  # the others have no payment
NAMES = ("Card.amount", "Card.payments_1d", "Card.shop")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    (tmp_path / "mainspring.toml").write_text(
        'name = "skewed"\nmodules = ["skewed_cards"]\n\n[profiles.local]\nclock = "replay"\n'
    )
    (tmp_path / "skewed_cards.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    project = open_project(load_settings(tmp_path))
    project.clock.set(START)  # type: ignore[attr-defined]
    apply(project)
    rows = [
        {
            "at": to_datetime(START - (1 + number) * MINUTE),
            "card": f"c{number % KNOWN}",
            "amount": number / 4,
            "shop": f"s{number % 9}",
        }
        for number in range(2 * KNOWN)
    ]
    land(project, "payments", rows)
    materialise_views(project)
    return project


def _bundle(project: Project) -> str:
    view = project.definitions.view("Card")
    observations = ms.Observations(view.source, keys=[view.entity], at=ms.col("at"))
    kit = serving_kit.bundle()
    bundle = seal(kit.manifest, {**kit.files, FEATURES: dump([view], observations)}, project.signing_key)
    project.bundles.save(bundle)
    return bundle.digest


def _serve(project: Project, digest: str, hour: int, planted: Mapping[str, Mapping[str, Any]]) -> None:
    """Log two predictions of each card within an hour, the newer one with other values where they are planted."""
    cards = [f"c{number}" for number in range(CARDS)]
    read = OnlineReader([project.definitions.view("Card")], project.online).read({"card": cards}, START).features
    made = []
    for turn in (0, 1):
        for number, card in enumerate(cards):
            features = {name: read[name][number] for name in NAMES} | (planted.get(card, {}) if turn else {})
            made.append(
                Prediction(
                    id=f"h{hour}t{turn}c{number}", endpoint="fraud", model="fraud", version="3", digest=digest,
                    at=START + hour * HOUR + turn * MINUTE + number, keys={"card": card}, request={}, features=features,
                    statuses={}, outputs={"score": 0.5}, latency_us=9, principal="key",
                )
            )  # fmt: skip
    project.prediction_log.append(made)
    project.predictions.compact()


def test_planted_differences_are_found_by_feature_and_kind_and_nothing_else(project: Project) -> None:
    digest = _bundle(project)
    drawn = sorted((f"c{number}" for number in range(CARDS)), key=lambda card: key_hash(f'{{"card":"{card}"}}'))[
        :AN_HOUR
    ]
    known = [card for card in drawn if int(card[1:]) < KNOWN]
    unknown = [card for card in drawn if int(card[1:]) >= KNOWN]
    assert len(unknown) > 20
    planted: dict[str, dict[str, Any]] = {card: {} for card in drawn}
    for cards, name, value in (
        (known[:7], "Card.amount", 1e6),  # another value than the stored one
        (known[5:10], "Card.shop", None),  # null, and one is stored
        (unknown[:4], "Card.amount", 3.0),  # a value of a key that is not stored
        (unknown[2:11], "Card.shop", "s1"),
        (known[20:33], "Card.payments_1d", 77),
    ):
        for card in cards:
            planted[card][name] = value
    apart = {f"c{number}": {"Card.amount": -1.0} for number in range(CARDS)}
    planted |= {card: wrong for card, wrong in apart.items() if card not in drawn}  # never looked at

    for hour, wrong in ((0, {}), (1, planted), (2, {})):
        _serve(project, digest, hour, wrong)
        assert compare(project, "fraud", START + (hour + 1) * HOUR + 20 * MINUTE) is True
        assert compare(project, "fraud", START + (hour + 1) * HOUR + 20 * MINUTE) is False

    table = query(project, "SELECT * FROM skew ORDER BY hour, feature")
    assert table.columns == (
        "endpoint",
        "version",
        "digest",
        "hour",
        "feature",
        "match",
        "mismatch",
        "missing",
        "extra",
    )
    assert {row[:3] for row in table.rows} == {("fraud", "3", digest)}
    clean = [(name, AN_HOUR, 0, 0, 0) for name in NAMES]
    found = [
        ("Card.amount", AN_HOUR - 11, 7, 0, 4),
        ("Card.payments_1d", AN_HOUR - 13, 13, 0, 0),
        ("Card.shop", AN_HOUR - 14, 0, 5, 9),
    ]
    assert [row[4:] for row in table.rows] == [*clean, *found, *clean]
    assert [row[3] for row in table.rows[::3]] == [to_datetime(START + hour * HOUR) for hour in (0, 1, 2)]
    assert skew(project, "fraud") == {
        name: {"match": 2 * AN_HOUR + match, "mismatch": mismatch, "missing": missing, "extra": extra}
        for name, match, mismatch, missing, extra in found
    }


def test_old_counts_are_deleted_once_a_day(tmp_path: Path) -> None:
    lake = DeltaLake(tmp_path)
    table = SkewTable(lake)
    compared = {("3", "d"): {"match Card.amount": 5.0}}
    ended = [table.add("fraud", day * DAY + hour * HOUR, compared) for day in (20_000, 20_001) for hour in range(3)]
    assert ended == [False, False, False, True, False, False]
    table.tidy(made_before=20_001 * DAY, replaced_before=0)
    kept = pa.concat_tables(pq.read_table(file) for file in lake.scan(TABLE).files or ())
    assert sorted(kept["hour"].cast(pa.int64()).to_pylist()) == [20_001 * DAY + hour * HOUR for hour in range(3)]
    table.tidy(made_before=None, replaced_before=2**60)
    assert len(list((tmp_path / TABLE).rglob("*.parquet"))) == len(lake.scan(TABLE).files or ())
