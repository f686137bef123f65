"""Access to personal values of predictions, with an event in the audit log for each."""

from __future__ import annotations

from mainspring.core.errors import Conflict
from mainspring.ledger.model import Prediction
from mainspring.operations.auditing import audit
from mainspring.project import Project
from mainspring.security.model import Action, Principal

REVEAL = "predictions.reveal"


def reveal(project: Project, prediction_id: str, principal: Principal | None = None) -> Prediction:
    """Return a prediction with its sealed values decrypted. The access is audited before the decryption.

    Args:
        principal: The caller, by default the user of this process; a key needs the scope `manage`.

    Raises:
        NotFound: It was never logged.
        Denied: The key lacks the scope.
        Conflict: Its endpoint does not log such values.
        Corrupt: The values were sealed by another installation's key.
    """
    resource = f"prediction/{prediction_id}"
    if principal is not None:
        project.authoriser.check(principal, Action.MANAGE, resource)
    prediction = project.predictions.find(prediction_id)
    if prediction.personal and not prediction.sealed:
        raise Conflict(
            f"Prediction {prediction_id} was logged without {', '.join(prediction.personal)}.",
            fix='the values cannot be restored: the endpoint has log=ms.Log(personal="leave out").',
        )
    who = None if principal is None else principal.id
    audit(project, REVEAL, resource, ", ".join(prediction.personal), who=who)
    return project.predictions.revealed(prediction)
