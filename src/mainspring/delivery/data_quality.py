"""Gates on the training data, as the bundle records it: nulls, values out of range, shares of the classes."""

from __future__ import annotations

import msgspec

from mainspring.delivery.model import ROUNDING, GateResult, nothing
from mainspring.delivery.slices import listed
from mainspring.registry.bundles import REFERENCE
from mainspring.registry.model import Bundle
from mainspring.stats.reference import Reference
from mainspring.training.bundling import CLASS_SHARES, RANGES
from mainspring.training.gate_kinds import DataGate

_AGAINST = "training data"


def judge_data(gate: DataGate, bundle: Bundle) -> GateResult:
    """Return the result of a gate on the training data."""
    if gate.kind == "nulls":
        return _nulls(gate, bundle)
    if gate.kind == "range":
        return _range(gate, bundle)
    return _class_share(gate, bundle)


def _nulls(gate: DataGate, bundle: Bundle) -> GateResult:
    if REFERENCE not in bundle.files:
        return nothing(gate, _AGAINST, "the bundle has no profile of its training data.", "train the model here.")
    profile = msgspec.json.decode(bundle.files[REFERENCE], type=Reference).columns
    names = [each.name for each in bundle.manifest.inputs]
    wanted = [name for name in names if not gate.columns or name in gate.columns or _end(name) in gate.columns]
    known = {*wanted, *map(_end, wanted)}
    unknown = [name for name in gate.columns if name not in known]
    if unknown or not wanted:
        return nothing(gate, _AGAINST, f"the model has no input {', '.join(unknown)}; it has {', '.join(names)}.")
    if unseen := [name for name in wanted if name not in profile]:
        return nothing(
            gate, _AGAINST, f"insufficient data: the bundle has no profile of {listed(unseen)}.", "train again."
        )
    shares = {
        name: (profile[name].nulls + profile[name].nans) / profile[name].count if profile[name].count else 1.0
        for name in wanted
    }
    worst = max(shares, key=lambda name: shares[name])
    return _at_most(gate, shares[worst], worst, profile[worst].count)


def _range(gate: DataGate, bundle: Bundle) -> GateResult:
    for each in bundle.manifest.extra.get(RANGES, ()):
        if (each["column"], each["low"], each["high"]) == (gate.metric, gate.low, gate.high):
            if not each["rows"]:
                return nothing(gate, _AGAINST, f"insufficient data: {gate.metric} has no value in the training rows.")
            return _at_most(gate, each["share"], gate.metric, each["rows"])
    note = f"the bundle does not record how many values of {gate.metric} are out of this range."
    return nothing(gate, _AGAINST, note, "train the model again: the gate is newer than the version.")


def _class_share(gate: DataGate, bundle: Bundle) -> GateResult:
    shares = bundle.manifest.extra.get(CLASS_SHARES)
    if not shares:
        note = "the bundle does not record the shares of classes in its training data."
        return nothing(gate, _AGAINST, note, "train a model with classes again.")
    if bundle.manifest.task == "binary":
        value, name = float(shares.get("1", 0.0)), "class 1"
    else:
        name = min(shares, key=lambda each: shares[each])
        if gate.low is None or (gate.high is not None and max(shares.values()) > gate.high):
            name = max(shares, key=lambda each: shares[each])
        value, name = float(shares[name]), f"class {name}"
    low, high = gate.low or 0.0, 1.0 if gate.high is None else gate.high
    needed = low if value < low or gate.high is None else high
    missing = max(low - value, value - high)
    passed = missing <= ROUNDING
    return GateResult(
        gate=str(gate),
        against=_AGAINST,
        value=value,
        needed=needed,
        passed=passed,
        short_by=0.0 if passed else missing,
        slice=name,
        rows=bundle.manifest.extra.get("training_rows"),
    )


def _at_most(gate: DataGate, value: float, name: str, rows: int) -> GateResult:
    passed = value - gate.value <= ROUNDING
    return GateResult(
        gate=str(gate),
        against=_AGAINST,
        value=value,
        needed=gate.value,
        passed=passed,
        short_by=0.0 if passed else value - gate.value,
        slice=name,
        rows=rows,
    )


def _end(name: str) -> str:
    return name.rpartition(".")[2]
