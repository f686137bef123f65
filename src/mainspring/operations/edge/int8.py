"""Whether a version may run in INT8: judged by its own gates and a tolerance on held-out rows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from mainspring.core.errors import MainspringError
from mainspring.delivery.held_out import read_held_out
from mainspring.delivery.model import GateResult
from mainspring.deploy.edge.golden import arrays_of, recorded_rows, worst_difference
from mainspring.deploy.edge.package import MODEL
from mainspring.operations.optimise.judging import judge_gates, with_metrics
from mainspring.registry.bundles import HOLDOUT
from mainspring.registry.model import Bundle
from mainspring.training.bundling import parquet_file
from mainspring.training.flavours import Artefact
from mainspring.training.flavours.scoring import artefact_feeds, artefact_scores
from mainspring.training.frames import Array, to_array
from mainspring.training.model import Model
from mainspring.training.optimise.static_int8 import quantised

_CALIBRATED = 4  # every fourth held-out row calibrates, the others judge
_MOST_CALIBRATED = 1000


@dataclass(frozen=True, slots=True)
class Int8:
    """The verdict on a quantised model.

    Attributes:
        why: Why it is not allowed, or empty.
        worst: The largest difference from FP32 over 1 + the FP32 output's size, on `rows` rows.
        gates: The model's gates, judged with the quantised model's predictions on `judged` held-out rows.
    """

    allowed: bool
    tolerance: float
    why: str = ""
    worst: float | None = None
    rows: int = 0
    judged: int = 0
    bytes: int = 0
    gates: tuple[GateResult, ...] = ()

    def detail(self, fp32_bytes: int) -> str:
        """Return the verdict in words, beside the size of the model in FP32."""
        if not self.allowed:
            return f"{self.why[:1].upper()}{self.why[1:]}."
        return (
            f"INT8: {self.bytes:,} of {fp32_bytes:,} bytes; outputs differ by at most {self.worst:.2g} on "
            f"{self.rows:,} rows, {self.tolerance:g} are allowed."
        )


def judge_int8(bundle: Bundle, tolerance: float, declared: Model | None = None) -> tuple[Int8, bytes | None]:
    """Return the verdict on the quantised model of a bundle, and that model if its gates and the tolerance allow it.

    Args:
        declared: The model with its gates; `None` for one that is only registered.
        tolerance: Largest difference of an output from FP32, absolute and relative, on held-out, golden and probe rows.
    """
    if HOLDOUT not in bundle.files or bundle.manifest.tensors:
        return Int8(False, tolerance, "the bundle has no held-out rows to judge it on"), None
    table = read_held_out(bundle)
    numbers = np.arange(table.num_rows)
    chosen = numbers % _CALIBRATED == 0
    names = [each.name for each in bundle.manifest.inputs]
    calibration = _columns(bundle, table.take(pa.array(numbers[chosen][:_MOST_CALIBRATED])))
    try:
        content = quantised(bundle.files[MODEL], artefact_feeds(_artefact(bundle), calibration, names))
    except MainspringError as error:
        return Int8(False, tolerance, error.what.rstrip(".")), None
    judged = table.filter(pa.array(~chosen))
    small = replace(bundle, files={**bundle.files, MODEL: content, HOLDOUT: parquet_file(judged)})
    worst, rows = _worst(bundle, small, judged)
    gates = () if declared is None else judge_gates(with_metrics(small, declared), declared)
    failed = [str(each) for each in gates if not each.passed]
    why = f"an output differs by {worst:.2g}, more than {tolerance:g}" if worst > tolerance else ""
    if failed and not why:
        why = f"a gate fails: {failed[0]}"
    found = Int8(not why, tolerance, why, worst, rows, judged.num_rows, len(content), gates)
    return found, content if found.allowed else None


def _artefact(bundle: Bundle) -> Artefact:
    return Artefact("onnx", MODEL, bundle.files[MODEL])


def _columns(bundle: Bundle, table: pa.Table) -> dict[str, Array]:
    return {each.name: to_array(table.column(each.name), each.dtype) for each in bundle.manifest.inputs}


def _worst(bundle: Bundle, small: Bundle, judged: pa.Table) -> tuple[float, int]:
    """Return the largest difference over the judged, golden and probe rows, and how many those are."""
    names = [each.name for each in bundle.manifest.inputs]
    golden, _ = recorded_rows(bundle)
    worst, rows = 0.0, 0
    for columns in (_columns(bundle, judged), arrays_of(golden, bundle.manifest)):
        wanted, found = (artefact_scores(_artefact(each), columns, names) for each in (bundle, small))
        worst = max(worst, worst_difference(found, wanted))
        rows += len(wanted)
    return worst, rows
