"""Variants of a version as they were measured, and the report of them."""

from __future__ import annotations

import msgspec

from mainspring.registry.lineage import VARIANT

PARENT = "parent"  # name of the version itself among its variants
REPORT = "optimise.json"  # artefact of the run
PURPOSE = "optimise"  # of the run
_NOTHING = 1e-6
MADE = VARIANT  # key in a manifest's `extra`, too


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """A variant's metric on the held-out rows, and how much worse it is than the parent's there.

    `loss` is positive where the variant is worse, in the metric's unit. `loss_low` and `loss_high` bound it, each with
    95 % probability, by a jackknife over blocks of time; both are null with too few blocks.
    """

    value: float
    loss: float
    loss_low: float | None
    loss_high: float | None

    @property
    def worst_loss(self) -> float:
        """The loss that is not exceeded with 95 % probability; the measured one without an interval."""
        return self.loss if self.loss_high is None else self.loss_high

    @property
    def losses(self) -> tuple[str, ...]:
        """The loss, and its upper bound where it is known, for people: rounding is 0."""
        known = (self.loss,) if self.loss_high is None else (self.loss, self.loss_high)
        shown = ("0" if abs(each) <= _NOTHING * max(1.0, abs(self.value)) else f"{each:.2g}" for each in known)
        return tuple(dict.fromkeys(shown))


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """Cost of a model on the engine that serves it. Latencies are of calls without a network, by turns with the parent.

    `memory_bytes` is what the model takes in a process of its own. Null: this machine does not tell it.
    """

    bytes: int  # of the model's file
    load_ms: float
    p50_us: float  # of one row
    p99_us: float
    batch_rows: int
    batch_p50_us: float
    rows_a_second: float  # of such batches
    memory_bytes: int | None
    energy_uj_a_row: float | None  # of such batches, of the whole processor


class VariantReport(msgspec.Struct, frozen=True, kw_only=True):
    """A variant: what was measured, and why it may not be chosen, if it may not.

    `apart` is the largest difference of a row's answer alone from its answer in a batch; `worst` of an answer from the
    parent's, over 1 + its size. `provider` is the execution provider of ONNX Runtime that it needs, if not the
    processor's. `kept` names what was not quantised, and why. `cosine` is the mean of an encoder's vectors to the
    parent's. What could not be made has only `why_not`.
    """

    name: str
    how: str
    why_not: str = ""
    quality: Quality | None = None
    cost: Cost | None = None
    apart: float | None = None
    worst: float | None = None
    gates_failed: tuple[str, ...] = ()
    provider: str = ""
    kept: str = ""
    cosine: float | None = None
    front: bool = False
    chosen: bool = False


class OptimiseReport(msgspec.Struct, frozen=True, kw_only=True):
    """Variants of a version, measured on this machine. `registered` is the version that the chosen one became."""

    model: str
    version: str
    target: str
    machine: str
    providers: tuple[str, ...]  # of ONNX Runtime, that this machine has
    metric: str
    higher_is_better: bool
    within: float
    held_out_rows: int
    judged_on: str = ""  # those rows
    energy: str = ""  # where it is read, or why it is not
    variants: tuple[VariantReport, ...]
    chosen: str | None
    why: str
    run_id: str | None
    registered: str | None
    seconds: float
