"""Outputs as a policy shows them to a caller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mainspring.core.errors import Denied
from mainspring.registry.model import Manifest
from mainspring.security.model import Principal
from mainspring.serving.outputs import Outputs
from mainspring.serving.plane.metering import named

_HALF = 0.5
Arrays = Mapping[str, np.ndarray[Any, Any]]


def policy_of(policies: Sequence[Outputs], caller: Principal | None) -> Outputs | None:
    """Return the policy that holds for a caller; `None` if the caller gets all."""
    found = next((each for each in policies if named(each.only, caller)), None)
    return None if found is None or found.whole else found


def shaped(policy: Outputs, manifest: Manifest, outputs: Arrays) -> Arrays:
    """Return all outputs of a model as a policy shows them.

    Args:
        outputs: Output -> array, shape (rows, ...).

    Raises:
        Denied: Labels alone are shown, and an output is a number that is no class.
    """
    classes = manifest.outputs if manifest.task == "multiclass" else ()
    if not classes:
        return {name: _shown(policy, manifest, name, array) for name, array in outputs.items()}
    scores = np.stack([outputs[name] for name in classes], axis=-1)
    found = _classes(policy, scores)
    return {**outputs, **{name: found[..., place] for place, name in enumerate(classes)}}


def _shown(policy: Outputs, manifest: Manifest, name: str, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if array.dtype.kind != "f":
        return array
    if manifest.task == "binary":
        return (array >= _HALF).astype(array.dtype) if policy.labels else _rounded(policy, array)
    if manifest.tensors and array.ndim > 1 and array.shape[-1] > 1:
        return _classes(policy, array)
    if policy.labels:
        raise Denied(f"Callers get labels alone here, and {name!r} is none.", authenticated=True)
    return _rounded(policy, array)


def _classes(policy: Outputs, scores: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return scores of classes, which are along the last axis."""
    top = 1 if policy.labels else policy.top
    if top is not None and top < scores.shape[-1]:
        best = np.argsort(-scores, axis=-1, kind="stable")[..., :top]
        kept = np.zeros_like(scores)
        np.put_along_axis(kept, best, 1 if policy.labels else np.take_along_axis(scores, best, axis=-1), axis=-1)
        scores = kept
    return scores if policy.labels else _rounded(policy, scores)


def _rounded(policy: Outputs, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return array if policy.digits is None else np.round(array, policy.digits)
