"""Near-duplicates in a training set: copies within and across its parts are told by part, key and label."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kit.training_sets import toy
from mainspring.training.near_duplicates import find, table_of
from mainspring.training.sets.training_set import TrainingSet


def planted() -> TrainingSet:
    """Rows of which some held-out ones repeat training rows with noise, and one training row is repeated six times."""
    rng = np.random.default_rng(5)
    data = toy(1_000, **{f"x{place}": rng.normal(size=1_000).astype(np.float32) for place in range(5)})
    train, holdout = data.train.X.copy(), data.holdout.X.copy()
    for place in range(10):
        holdout.iloc[place * 20] = train.iloc[place * 7 + 100]
    holdout["V.x1"] += np.float32(0.02)
    for place in range(300, 306):
        train.iloc[place] = train.iloc[50]
    y = data.train.y.copy()
    y[300:306] = 1 - y[50]
    return replace(
        data, train=replace(data.train, X=train, y=y), holdout=replace(data.holdout, X=holdout)
    )  # fmt: skip


def test_copies_are_told_by_part_key_and_label() -> None:
    found = find(planted(), 0.95)
    assert found.rows == {"train": 700, "validation": 100, "holdout": 200}
    assert found.repeats == found.of_training == {"train": 6, "validation": 0, "holdout": 10}
    pairs = {each.row.keys["id"]: each.of.keys["id"] for each in found.found}
    assert pairs == {**dict.fromkeys(range(300, 306), 50), **{800 + place * 20: place * 7 + 100 for place in range(10)}}
    row, count = found.most_repeated[0]
    assert (row.keys, row.part, count) == ({"id": 50}, "train", 6)
    flipped = [each for each in found.found if each.of.keys == {"id": 50}]
    assert all(each.row.label != each.of.label and each.similarity == 1.0 for each in flipped)


def test_the_table_leaves_out_what_identifies_a_person() -> None:
    found = find(planted(), 0.95)
    header = b"id,at,part,label,of_id,of_at,of_part,of_label,similarity"
    assert table_of(found).splitlines()[0] == header
    assert table_of(found, hidden=["id"]).splitlines()[0] == header.replace(b"of_id,", b"").removeprefix(b"id,")
    assert len(table_of(found).splitlines()) == len(found.found) + 1
