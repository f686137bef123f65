"""Security: who calls (API keys, console sessions), what they may do (Cedar policies), what is ours (signatures,
secrets), and what was done (the audit log).

`keys` issues and authenticates, `policy` decides, `sessions` and `hosts` protect the browser, `signing` and `secrets`
keep an installation's own keys. Backends are in `adapters`.
"""

from mainspring.security.model import Action, ApiKey, AuditEvent, Principal, Session

__all__ = ["Action", "ApiKey", "AuditEvent", "Principal", "Session"]
