"""Values that identify a person, shown to those who may see them, each time with an event in the audit log."""

from __future__ import annotations

from mainspring.core.errors import Conflict
from mainspring.ledger.model import Prediction
from mainspring.operations.auditing import audit
from mainspring.project import Project
from mainspring.security.model import Action, Principal

REVEAL = "predictions.reveal"


def reveal(project: Project, prediction_id: str, principal: Principal | None = None) -> Prediction:
    """Return a prediction with its sealed values shown. It is audited before it is decrypted.

    Args:
        principal: Who asks, if it is not whoever runs this process; the key needs the scope `manage`.

    Raises:
        NotFound: It was never logged.
        Denied: The key may not.
        Conflict: Its endpoint leaves such values out.
        Corrupt: They were sealed by another installation's key.
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
