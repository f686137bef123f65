"""Schema compatibility: whether a candidate accepts every request that the champion accepts, and answers it alike."""

from __future__ import annotations

from collections.abc import Sequence

from mainspring.delivery.model import GateResult, nothing
from mainspring.delivery.slices import listed
from mainspring.features import definitions
from mainspring.registry.bundles import FEATURES
from mainspring.registry.model import Bundle, TensorSpec
from mainspring.serving.plane.runtime import keyed_fields
from mainspring.serving.protocol.schema import Field
from mainspring.training.gate_kinds import EngineGate


def judge_compatibility(gate: EngineGate, candidate: Bundle, champion: Bundle, version: str) -> GateResult:
    """Return the result of the gate: its value is the number of incompatibilities, which the note lists."""
    against, found = f"champion {version}", incompatibilities(candidate, champion, full=gate.full)
    if found is None:
        return nothing(gate, against, "one of the two takes tensors, the other features.", "use another endpoint.")
    return GateResult(
        gate=str(gate),
        against=against,
        value=float(len(found)),
        needed=0.0,
        passed=not found,
        short_by=float(len(found)),
        note=listed(found),
    )


def incompatibilities(candidate: Bundle, champion: Bundle, *, full: bool) -> list[str] | None:
    """Return what of the champion's requests and replies the candidate does not keep; `None` if they share nothing.

    Args:
        full: Also count requests that bring every feature; else only those by key, from which features are looked up.
    """
    ours, theirs = candidate.manifest, champion.manifest
    if bool(ours.tensors) != bool(theirs.tensors):
        return None
    if ours.tensors:
        found = _of_tensors(ours.tensors, theirs.tensors, "input", new=True)
        return found + _of_tensors(ours.output_tensors, theirs.output_tensors, "output", new=False)
    found = []
    keyed = FEATURES in candidate.files and FEATURES in champion.files
    if keyed:
        mine, live = ({field.name: field for field in _fields(each)} for each in (candidate, champion))
        found += [f"{name} is now required" for name, field in mine.items() if field.required and not _sent(name, live)]
        found += [f"{name} is not known any more" for name in live if name not in mine]
        found += [
            f"{name} is {field.dtype!r}, not {live[name].dtype!r}"
            for name, field in mine.items()
            if name in live and field.dtype != live[name].dtype
        ]
    if full or not keyed:
        types = ({each.name: each.dtype for each in manifest.inputs} for manifest in (ours, theirs))
        mine_types, live_types = types
        found += [f"the feature {name} is new" for name in mine_types if name not in live_types]
        found += [f"the feature {name} is gone" for name in live_types if name not in mine_types]
        found += [
            f"the feature {name} is {dtype!r}, not {live_types[name]!r}"
            for name, dtype in mine_types.items()
            if live_types.get(name, dtype) != dtype
        ]
    if ours.task != theirs.task:
        found.append(f"the task is {ours.task}, not {theirs.task}")
    return found + [f"the output {name} is gone" for name in theirs.outputs if name not in ours.outputs]


def _fields(bundle: Bundle) -> Sequence[Field]:
    groups, observations = definitions.load(bundle.files[FEATURES])
    return keyed_fields(groups, observations)


def _sent(name: str, live: dict[str, Field]) -> bool:
    return name in live and live[name].required


def _of_tensors(ours: Sequence[TensorSpec], theirs: Sequence[TensorSpec], what: str, *, new: bool) -> list[str]:
    mine, live = ({each.name: each for each in specs} for specs in (ours, theirs))
    found = [f"the {what} {name} is new" for name in mine if new and name not in live]
    found += [f"the {what} {name} is gone" for name in live if name not in mine]
    for name in [each for each in mine if each in live]:
        wide, narrow = mine[name].shape, live[name].shape
        fits = len(wide) == len(narrow) and all(
            a == b or (a if what == "input" else b) == -1 for a, b in zip(wide, narrow, strict=True)
        )
        if mine[name].datatype != live[name].datatype or not fits:
            shown = [f"{each.datatype} {list(each.shape)}" for each in (mine[name], live[name])]
            found.append(f"the {what} {name} is {shown[0]}, not {shown[1]}")
    return found
