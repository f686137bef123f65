"""Wrong labels: the issues are those of the definition, and planted ones are found."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import deep, examples
from kit.engines import python_of
from mainspring.stats.label_issues import Floats, Places, find


def drawn(seed: int, rows: int, classes: int, wrong: float) -> tuple[Places, Places, Floats]:
    """Return the given and the true class of rows, a share of them wrong, and honest probabilities."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, classes)) * 2
    p = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    true = (p.cumsum(axis=1) > rng.random((rows, 1))).argmax(axis=1)
    true[:classes] = np.arange(classes)
    flipped = (true + rng.integers(1, classes, rows)) % classes
    labels = np.where(rng.random(rows) < wrong, flipped, true)
    labels[:classes] = np.arange(classes)
    return labels, true, p


def defined(labels: Places, p: Floats) -> dict[int, int]:
    """The definition, row by row."""
    classes = range(p.shape[1])
    threshold = [np.mean([p[row, c] for row in range(len(labels)) if labels[row] == c]) for c in classes]
    found = {}
    for row, label in enumerate(labels):
        counts = [c for c in classes if p[row, c] >= threshold[c]]
        best = max(counts, key=lambda c: (p[row, c], -c), default=label)
        if label not in (best, max(classes, key=lambda c: (p[row, c], -c))):
            found[row] = best
    return found


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(4, 60), classes=st.integers(2, 4))
@settings(max_examples=examples(gate=25, deep=500), deadline=None)
def test_issues_are_those_of_the_definition_and_every_label_is_in_the_joint_once(
    seed: int, rows: int, classes: int
) -> None:
    labels, _, p = drawn(seed, rows, classes, 0.2)
    found = find(labels, p)
    assert dict(zip(found.rows.tolist(), found.suggested.tolist(), strict=True)) == defined(labels, p)
    assert found.confidence.tolist() == sorted(found.confidence.tolist())
    assert found.joint.sum(axis=1) == pytest.approx(np.bincount(labels, minlength=classes))


def test_planted_errors_are_found_and_their_number_is_about_right() -> None:
    rng = np.random.default_rng(7)
    x = rng.normal(size=(20_000, 3))
    true, p = x.argmax(axis=1), np.exp(6 * x) / np.exp(6 * x).sum(axis=1, keepdims=True)
    flips = rng.random(20_000) < 0.08
    labels = np.where(flips, (true + rng.integers(1, 3, 20_000)) % 3, true)
    found = find(labels, p)
    right = np.sum(flips[found.rows])
    assert right / flips.sum() > 0.7  # rows that are close to another class count for none
    assert right / len(found.rows) > 0.95
    assert found.joint.sum() - np.trace(found.joint) == pytest.approx(flips.sum(), rel=0.1)


@deep
def test_cleanlab_finds_the_same(tmp_path: Path) -> None:
    sets = [drawn(seed, 400, 2 + seed % 4, 0.1) for seed in range(20)]
    given_to = [{"labels": labels.tolist(), "p": p.tolist()} for labels, _, p in sets]
    (tmp_path / "sets.json").write_text(json.dumps(given_to))
    program = (
        "import json, sys; import numpy as np; from cleanlab.filter import find_label_issues as find\n"
        "print(json.dumps([find(np.array(each['labels']), np.array(each['p']), filter_by='confident_learning',"
        " return_indices_ranked_by='self_confidence').tolist() for each in json.load(open(sys.argv[1]))]))"
    )
    ran = subprocess.run(
        [str(python_of("cleanlab")), "-W", "ignore", "-c", program, str(tmp_path / "sets.json")],
        capture_output=True,
        text=True,
        check=True,
    )
    for (labels, _, p), theirs in zip(sets, json.loads(ran.stdout), strict=True):
        assert sorted(find(labels, p).rows.tolist()) == sorted(theirs)
