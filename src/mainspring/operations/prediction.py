"""Logged predictions: what the model was given, and access to personal values, with an event in the audit log."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from mainspring.core.errors import Conflict
from mainspring.ledger.model import Prediction
from mainspring.operations.auditing import audit
from mainspring.project import Project
from mainspring.registry.model import Manifest
from mainspring.security.model import Action, Principal

REVEAL = "predictions.reveal"


class NotInLog(Conflict):
    """The log lacks an input that a model was given."""


def reveal(project: Project, prediction_id: str, principal: Principal | None = None) -> Prediction:
    """Return a prediction with its sealed values decrypted. The access is audited before the decryption.

    Args:
        principal: The caller, by default the user of this process; who must be allowed `column.reveal` on its endpoint.

    Raises:
        NotFound: It was never logged.
        Denied: The caller may not see such values.
        Conflict: Its endpoint does not log such values.
        Corrupt: The values were sealed by another installation's key.
    """
    resource = f"prediction/{prediction_id}"
    if principal is not None and not project.authoriser.allows_everywhere(principal, Action.COLUMN_REVEAL):
        found = f"endpoint/{project.predictions.find(prediction_id).endpoint}"
        project.authoriser.check(principal, Action.COLUMN_REVEAL, found)
    prediction = project.predictions.find(prediction_id)
    if prediction.personal and not prediction.sealed:
        raise Conflict(
            f"Prediction {prediction_id} was logged without {', '.join(prediction.personal)}.",
            fix='the values cannot be restored: the endpoint has log=ms.Log(personal="leave out").',
        )
    who = None if principal is None else principal.id
    audit(project, REVEAL, resource, ", ".join(prediction.personal), who=who)
    return project.predictions.revealed(prediction)


def model_inputs(prediction: Prediction, manifest: Manifest) -> dict[str, Any]:
    """Return what the model was given: input -> value, nested like a tensor's row, in the manifest's order.

    Raises:
        NotInLog: An input is encrypted, was left out, was too large for the log, or was not logged by this name.
    """
    names = [spec.name for spec in manifest.tensors] or [each.name for each in manifest.inputs]
    if hidden := [name for name in names if name in prediction.personal]:
        what, fix = _withheld(prediction, hidden)
        raise NotInLog(what, fix=fix)
    if unknown := [name for name in names if name not in prediction.features]:
        raise NotInLog(
            f"The log of prediction {prediction.id} lacks {_listed(unknown)}, which the model takes.",
            fix="the values cannot be restored; predictions of the present version are logged with all inputs.",
        )
    for spec in manifest.tensors:
        if is_shape(prediction.features[spec.name], spec.datatype, len(spec.shape)):
            raise NotInLog(
                f"The input {spec.name!r} of prediction {prediction.id} was too large for the log, which has its type "
                f"and shape only: {prediction.features[spec.name]}.",
                fix="keep such inputs on the caller's side, by the id of the prediction.",
            )
    return {name: prediction.features[name] for name in names}


def not_by_model(prediction: Prediction) -> NotInLog:
    """Return the error of a prediction that a fallback answered."""
    return NotInLog(
        f"Prediction {prediction.id} has no answer of the model: its row was unlike the training rows, and the "
        "endpoint's fallback was given.",
        fix="its inputs are in the log: `mainspring predictions show`.",
    )


def is_shape(value: object, datatype: str, rank: int) -> bool:
    """Return whether the log has a tensor's type and shape in place of its values: `float32[3, 224, 224]`.

    Args:
        rank: The number of the tensor's dimensions, with the batch's.
    """
    return isinstance(value, str) and (datatype != "BYTES" or rank > 1)


def _withheld(prediction: Prediction, names: Collection[str]) -> tuple[str, str]:
    what = f"{_listed(names)} of prediction {prediction.id}"
    if prediction.sealed:
        return f"{what} is encrypted, because it identifies a person.", (
            "decrypt it with --reveal; the audit log records the access."
        )
    return f"{what} was not logged, because it identifies a person.", (
        'the value cannot be restored: the endpoint had log=ms.Log(personal="leave out").'
    )


def _listed(names: Collection[str]) -> str:
    shown = ", ".join(list(names)[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown
