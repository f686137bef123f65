"""Documents and errors of SCIM 2.0."""

from __future__ import annotations

from fastapi.responses import Response

from mainspring.console.answers import Json
from mainspring.core.error_codes import codes_of
from mainspring.core.errors import Conflict, Invalid, MainspringError

ROOT = "/scim/v2"
CORE, MESSAGES = "urn:ietf:params:scim:schemas:core:2.0", "urn:ietf:params:scim:api:messages:2.0"


class Refused(Invalid):
    """An invalid request. `kind` is the scimType of RFC 7644, section 3.12."""

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(what)
        self.kind = kind


class Scim(Json):
    media_type = "application/scim+json"


def scim_error(error: MainspringError) -> Response:
    """Return an error as SCIM states it."""
    status = codes_of(error).http
    kind = error.kind if isinstance(error, Refused) else "uniqueness" if isinstance(error, Conflict) else ""
    kind = kind or ("invalidValue" if status == 400 else "")
    shown = {"schemas": [f"{MESSAGES}:Error"], "status": str(status), "detail": str(error)}
    headers = {"www-authenticate": "Bearer"} if status == 401 else None
    return Scim({**shown, **({"scimType": kind} if kind else {})}, status, headers)
