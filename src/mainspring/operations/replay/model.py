"""Verdicts of a replay."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Outcome = Literal["identical", "within tolerance", "differs", "cannot"]
IDENTICAL: Outcome = "identical"
WITHIN: Outcome = "within tolerance"
DIFFERS: Outcome = "differs"
CANNOT: Outcome = "cannot"
OUTCOMES: tuple[Outcome, ...] = (IDENTICAL, WITHIN, DIFFERS, CANNOT)


class Compared(msgspec.Struct, frozen=True):
    """A value as it was logged, and again."""

    logged: Any
    again: Any


class FeatureCheck(msgspec.Struct, frozen=True, kw_only=True):
    """The features that the model saw, beside the point-in-time read of the prediction's instant.

    Attributes:
        compared: Number of compared features.
        differing: Feature -> both values, to a relative 1e-6.
        statuses: Status in the online store of the features that differ, where they are stored ones.
        why: Reason for which nothing was compared; empty otherwise.
        fix: Remedy for that.
    """

    compared: int = 0
    differing: dict[str, Compared] = {}
    statuses: dict[str, str] = {}
    why: str = ""
    fix: str | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one logged prediction, again.

    Attributes:
        at: Instant of the prediction, UTC epoch microseconds.
        largest: Largest difference of a number, relative where the number is above 1 as in the tolerance; `None` if
            the answer is identical, or is not a number.
        tolerance: That of the bundle.
        outputs: Output -> both values, where they differ.
        rows: Rows of the call that gave the answer: 1 if only a call of its own, or 2 and more if only the original
            batch gave the bits; 0 if the rows beside it made no difference.
        why: What is missing for an answer; empty otherwise.
        fix: The command or act that brings it.
        features: `None` if the features were not compared.
    """

    prediction_id: str
    endpoint: str
    model: str
    version: str
    digest: str
    at: int
    outcome: Outcome
    largest: float | None = None
    tolerance: float = 0.0
    outputs: dict[str, Compared] = {}
    rows: int = 0
    why: str = ""
    fix: str | None = None
    features: FeatureCheck | None = None

    @property
    def fine(self) -> bool:
        """True if the model gives the answer again."""
        return self.outcome in (IDENTICAL, WITHIN)


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """Origin of a prediction. A part that is gone is empty, and `missing` says so.

    Attributes:
        signature: `valid`, or why it is not.
        dataset_commit: Snapshot of the data that trained the version.
        runtime: Name -> version here of the library that ran the model, and of the processor's relevant abilities.
        trained_with: The same of the training, where it was recorded.
    """

    digest: str
    signature: str
    flavour: str = ""
    run_id: str = ""
    dataset_commit: str = ""
    code_version: str = ""
    features_digest: str = ""
    runtime: dict[str, str] = {}
    trained_with: dict[str, str] = {}
    missing: tuple[str, ...] = ()


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """One replayed prediction: its verdict, what made it, and the inputs as the model saw them."""

    verdict: Verdict
    provenance: Provenance
    inputs: dict[str, Any]


class Missing(msgspec.Struct, frozen=True, kw_only=True):
    """Predictions that could not be replayed for one reason; the text of the reason names the first of them."""

    predictions: int
    why: str
    fix: str | None


class ReplayReport(msgspec.Struct, frozen=True, kw_only=True):
    """Replay of a sample.

    Attributes:
        outcomes: Outcome -> number of predictions, every outcome named.
        by_version: `model version` -> the same.
        largest: Largest difference among the answers within tolerance or differing; `None` without one.
        alone: Predictions whose bits only a call of their own row gave.
        in_batch: Predictions whose bits only the rows of their original batch together gave.
        differing: The first of the verdicts that differ.
        missing: Reasons for which predictions could not be replayed, the most frequent first.
        features_compared: Number of compared values.
        features_equal: Number of equal ones.
        features_differing: Feature -> number of predictions in which it differs.
        features_skipped: Reason -> number of predictions whose features could not be compared.
        examples: Verdicts with a differing feature, up to three of each feature.
    """

    endpoint: str | None
    predictions: int
    outcomes: dict[str, int]
    by_version: dict[str, dict[str, int]]
    largest: float | None
    alone: int
    in_batch: int
    differing: tuple[Verdict, ...]
    missing: tuple[Missing, ...]
    features_compared: int
    features_equal: int
    features_differing: dict[str, int]
    features_skipped: dict[str, int]
    examples: tuple[Verdict, ...]
    runtime: dict[str, str]
    seconds: float

    @property
    def fine(self) -> bool:
        """True if each prediction is answered again."""
        return self.outcomes[DIFFERS] == self.outcomes[CANNOT] == 0
