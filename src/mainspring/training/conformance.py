"""Conformance suite of flavours: a converted model equals its estimator, or conversion is refused with a reason.

Derive from `FlavourConformance` and provide `fit`. `measure` examines one case; the table in docs/reference/flavours.md
is generated from the same verdicts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from mainspring.core.errors import NotConvertible
from mainspring.core.schema import DType
from mainspring.registry.flavours import FLAVOURS
from mainspring.registry.model import Input
from mainspring.training.equivalence.check import TOLERANCE, Proof, prove
from mainspring.training.equivalence.rows import HELD_OUT, MADE, ROWS, proof_rows
from mainspring.training.flavours import Artefact, convert_estimator, estimator_scores, output_names
from mainspring.training.flavours.scoring import artefact_scores
from mainspring.training.frames import FRAME_DTYPES, Array, exact_in_float32

if TYPE_CHECKING:
    import pandas as pd

Fit = Callable[["pd.DataFrame", Array, str], Any]  # (columns, labels, task) -> a fitted estimator

EXACT, WITHIN, REFUSED = "exact", "within 1e-5", "refused"
_TRAINED, _HELD_OUT = 1200, 1200


@dataclass(frozen=True, slots=True)
class Case:
    """A test case: column types and a task."""

    columns: Mapping[str, DType]
    task: str = "binary"


NUMBERS = {"V.a": DType.Float32, "V.b": DType.Float32, "V.flag": DType.Boolean}
CASES: Mapping[str, Case] = {
    "float32, booleans": Case(NUMBERS),
    "float64": Case({**NUMBERS, "V.epoch": DType.Float64}),  # epoch seconds and a fraction
    "integers over 2^24": Case({**NUMBERS, "V.cents": DType.Int64}),
    "texts": Case({**NUMBERS, "V.kind": DType.String}),
    "several classes": Case(NUMBERS, "multiclass"),
    "regression around 1e6": Case(NUMBERS, "regression"),
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """Result of one case: `reason` explains a refusal, `proof` is present otherwise."""

    verdict: str
    reason: str = ""
    artefact: Artefact | None = None
    proof: Proof | None = None

    def among(self, name: str) -> str:
        """Return the verdict on one kind of rows (see `Proof.by`)."""
        if self.proof is None or self.artefact is None:
            return REFUSED
        return _verdict(self.artefact, self.proof.by[name])


def make_rows(case: Case, rows: int, seed: int) -> tuple[pd.DataFrame, Array]:
    """Generate columns of the case's types and matching labels; a tenth of `V.a` and of the texts is null."""
    import pandas as pd

    rng = np.random.default_rng(seed)
    a, b, flag = rng.normal(size=rows), rng.normal(size=rows), rng.random(rows) < 0.5
    late, cents = rng.integers(0, 60, rows), rng.integers(0, 60, rows)
    kinds = rng.choice(np.array(["bread", "cake", "pie", "tart"], object), rows)
    pull = a + b * flag + rng.normal(scale=0.5, size=rows)
    a[rng.random(rows) < 0.1] = np.nan
    made: dict[str, Any] = {"V.a": a, "V.b": b, "V.flag": flag}
    if "V.epoch" in case.columns:
        pull, made["V.epoch"] = pull + late / 20, 1_760_000_000.37 + late
    if "V.cents" in case.columns:
        pull, made["V.cents"] = pull + cents / 20, 2**24 + cents
    if "V.kind" in case.columns:
        pull = pull + (kinds == "cake") - (kinds == "pie")
        kinds[rng.random(rows) < 0.1] = None
        made["V.kind"] = kinds
    frame = pd.DataFrame(
        {name: pd.Series(made[name], dtype=FRAME_DTYPES[dtype]) for name, dtype in case.columns.items()}
    )
    if case.task == "regression":
        return frame, 1e6 + 10 * pull
    if case.task == "binary":
        return frame, (pull > np.median(pull)).astype(np.int64)
    return frame, np.digitize(pull, np.quantile(pull, [0.3, 0.6])).astype(np.int64)


def measure(fit: Fit, case: Case) -> Verdict:
    """Fit an estimator, convert it, and prove the model in a fresh process; return the verdict.

    Raises:
        AssertionError: The proof passed, but the model differs on newly drawn rows.
    """
    frame, y = make_rows(case, _TRAINED, 1)
    held_out, _ = make_rows(case, _HELD_OUT, 2)
    inputs = [Input(name, dtype) for name, dtype in case.columns.items()]
    wide = [
        name
        for name, dtype in case.columns.items()
        if dtype in (DType.Float64, DType.Int64) and not exact_in_float32(frame[name].to_numpy())
    ]
    estimator = fit(frame, y, case.task)
    try:
        artefact = convert_estimator(estimator, inputs, case.task, wide=wide)
        rows = proof_rows(estimator, artefact, held_out, inputs, wide=wide)
        proof = prove(estimator, artefact, rows, inputs, case.task)
    except NotConvertible as error:
        return Verdict(REFUSED, error.what)
    others, _ = make_rows(case, _HELD_OUT, 3)  # rows that the proof did not use, scored without it
    expected = estimator_scores(estimator, others, case.task)
    off = np.abs(artefact_scores(artefact, others, list(case.columns)) - expected).max()
    assert off <= TOLERANCE * max(1.0, float(np.std(expected))), f"{off} off on rows that the proof did not see"
    assert proof.rows >= ROWS + proof.probes
    assert len(output_names(estimator, case.task)) == (3 if case.task == "multiclass" else 1)
    return Verdict(_verdict(artefact, proof.worst), artefact=artefact, proof=proof)


def _verdict(artefact: Artefact, worst: float) -> str:
    # A converted model may differ in the last bit between processors, so it is never reported as exact.
    return EXACT if worst == 0 and artefact.native else WITHIN


class FlavourConformance:
    """Base of a flavour's test class. Provide `fit`, and `refused`: case -> expected text of the refusal."""

    fit: Fit
    refused: Mapping[str, str] = {}

    @classmethod
    @cache
    def found(cls, case: str) -> Verdict:
        return measure(cls.fit, CASES[case])

    def _check(self, case: str) -> None:
        found = self.found(case)
        if case in self.refused:
            assert found.verdict == REFUSED
            assert self.refused[case] in found.reason
        else:
            assert found.verdict != REFUSED, found.reason

    def test_float32_and_booleans(self) -> None:
        self._check("float32, booleans")

    def test_what_float32_does_not_hold(self) -> None:
        self._check("float64")

    def test_integers_over_2_to_the_24(self) -> None:
        self._check("integers over 2^24")

    def test_texts_with_nulls_and_unseen_ones(self) -> None:
        self._check("texts")

    def test_several_classes(self) -> None:
        self._check("several classes")

    def test_a_regression_far_from_zero(self) -> None:
        self._check("regression around 1e6")

    def test_nulls_thresholds_small_batches_and_single_rows_were_compared(self) -> None:
        proof = self.found("float32, booleans").proof
        assert proof is not None
        assert {HELD_OUT, MADE, "null", "threshold", "in small batches", "one by one"} <= set(proof.by)

    def test_no_rows_are_no_answers(self) -> None:
        proof = self.found("float32, booleans").proof
        assert proof is not None
        assert proof.none

    def test_its_file_is_one_that_cannot_run_code(self) -> None:
        artefact = self.found("float32, booleans").artefact
        assert artefact is not None
        kind = FLAVOURS[artefact.flavour]
        assert artefact.name in kind.files
        assert kind.check is not None
        kind.check(artefact.content, artefact.name)

    def test_the_same_training_makes_the_same_bytes(self) -> None:
        case = CASES["float32, booleans"]
        frame, y = make_rows(case, _TRAINED, 1)
        inputs = [Input(name, dtype) for name, dtype in case.columns.items()]
        again = convert_estimator(type(self).fit(frame, y, case.task), inputs, case.task)
        assert again == self.found("float32, booleans").artefact
