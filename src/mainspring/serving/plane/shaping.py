"""Outputs as a policy shows them to a caller."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from mainspring.core.errors import Denied
from mainspring.registry.model import Manifest, TensorSpec
from mainspring.security.model import Principal
from mainspring.serving.model import REFUSE, Route
from mainspring.serving.outputs import LABELS, Outputs
from mainspring.serving.plane.metering import named

_HALF = 0.5
_MOST_CALLERS = 4096
Arrays = Mapping[str, np.ndarray[Any, Any]]


class Policies:
    """Policies of one endpoint, by caller.

    Attributes:
        restricted: What callers get whom incidents restrict, by their ids.
    """

    def __init__(self, route: Route) -> None:
        self._endpoint = route.endpoint
        self.restricted = {each.caller: each.to for each in route.restricted}
        self._policies = route.outputs
        self._known: dict[str, tuple[Principal, Outputs | None]] = {}

    def of(self, caller: Principal | None) -> Outputs | None:
        """Return the policy that holds for a caller; `None` if the caller gets all."""
        if not self._policies and not self.restricted:
            return None
        if caller is None:
            return self._find(None)
        known = self._known.get(caller.id)
        if known is None or known[0] is not caller:
            if known is None and len(self._known) >= _MOST_CALLERS:
                del self._known[next(iter(self._known))]
            known = self._known[caller.id] = caller, self._find(caller)
        return known[1]

    def check(self, caller: Principal) -> None:
        """Raise if a caller gets no answers.

        Raises:
            Denied: An incident had the caller refused.
        """
        if self.restricted.get(caller.id) == REFUSE:
            raise Denied(
                f"Your requests to {self._endpoint!r} are refused: they look like an attempt to copy the model.",
                fix="ask those who run the endpoint.", authenticated=True,
            )  # fmt: skip

    def _find(self, caller: Principal | None) -> Outputs | None:
        if caller is not None and caller.id in self.restricted:
            return LABELS
        found = next((each for each in self._policies if named(each.only, caller, self._endpoint)), None)
        return None if found is None or found.whole else found


def check(policy: Outputs, manifest: Manifest, wanted: Sequence[TensorSpec]) -> None:
    """Raise if the policy lets no numbers of a wanted output through, as far as its declared shape says so.

    Raises:
        Denied: Labels alone are shown, and an output is a number that is no class.
    """
    classes = _class_names(manifest)
    for spec in wanted:
        number = spec.datatype.startswith("FP") and spec.name not in classes and manifest.task != "binary"
        if policy.labels and number and not _has_classes(manifest, spec.shape):
            raise _no_label(spec.name)


def needed(manifest: Manifest, wanted: Collection[str]) -> Collection[str]:
    """Return the outputs by which wanted ones are shaped: of classes all."""
    classes = _class_names(manifest)
    return wanted if classes.isdisjoint(wanted) else classes.union(wanted)


def shaped(policy: Outputs, manifest: Manifest, outputs: Arrays) -> Arrays:
    """Return outputs of a model as a policy shows them.

    Args:
        outputs: Output -> array, shape (rows, ...), of all classes or none.

    Raises:
        Denied: Labels alone are shown, and an output is a number that is no class.
    """
    classes = [name for name in manifest.outputs if name in _class_names(manifest) and name in outputs]
    found = {name: _shown(policy, manifest, name, array) for name, array in outputs.items() if name not in classes}
    if classes:
        scores = _classes(policy, np.stack([outputs[name] for name in classes], axis=-1))
        found |= {name: scores[..., place] for place, name in enumerate(classes)}
    return found


def _class_names(manifest: Manifest) -> frozenset[str]:
    return frozenset(manifest.outputs if manifest.task == "multiclass" else ())


def _has_classes(manifest: Manifest, shape: Sequence[int]) -> bool:
    """Return whether the last axis of an output may be of classes."""
    return bool(manifest.tensors) and len(shape) > 1 and shape[-1] not in (0, 1)


def _no_label(name: str) -> Denied:
    return Denied(f"Callers get labels alone here, and {name!r} is none.", authenticated=True)


def _shown(policy: Outputs, manifest: Manifest, name: str, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if array.dtype.kind != "f":
        return array
    if manifest.task == "binary":
        return (array >= _HALF).astype(array.dtype) if policy.labels else _rounded(policy, array)
    if _has_classes(manifest, array.shape):
        return _classes(policy, array)
    if policy.labels:
        raise _no_label(name)
    return _rounded(policy, array)


def _classes(policy: Outputs, scores: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return scores of classes, which are along the last axis."""
    top = 1 if policy.labels else policy.top
    if policy.labels or (top is not None and top < scores.shape[-1]):
        best = np.argsort(-scores, axis=-1, kind="stable")[..., :top]
        values, kept = np.take_along_axis(scores, best, axis=-1), np.zeros_like(scores)
        # A row without a number has no class.
        np.put_along_axis(kept, best, ~np.isnan(values) if policy.labels else values, axis=-1)
        scores = kept
    return scores if policy.labels else _rounded(policy, scores)


def _rounded(policy: Outputs, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if policy.digits is None:
        return array
    with np.errstate(over="ignore", invalid="ignore"):
        found = np.round(array.astype(np.float64), policy.digits)
    # Numbers too large for it have no decimals.
    return np.where(np.isfinite(found), found, array).astype(array.dtype)
