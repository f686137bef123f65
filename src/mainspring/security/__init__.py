"""Security: authentication (API keys, console sessions), authorisation (Cedar policies), signatures and secrets, and
the audit log.

`keys` issues and authenticates, `policy` decides, `sessions` and `hosts` protect the browser, `signing` and `secrets`
manage an installation's own keys. Backends are in `adapters`.
"""

from mainspring.security.model import ApiKey, AuditEvent, KeyScope, Principal, Session

__all__ = ["ApiKey", "AuditEvent", "KeyScope", "Principal", "Session"]
