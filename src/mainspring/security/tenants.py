"""The tenant whose documents a caller may have searched: decided by policies, never by what a request asks for."""

from __future__ import annotations

from mainspring.core.errors import Denied, Invalid
from mainspring.security.model import Action, Principal
from mainspring.security.ports import Authoriser

_KIND = "tenant/"
_LONGEST = 256


def tenant_of(authoriser: Authoriser, caller: Principal, named: str | None) -> str:
    """Return the tenant of a caller: the only one for which it has a role, or the named one if a policy permits it.

    A refusal is the same for a tenant that has documents and for one that has none.

    Raises:
        Denied: No policy permits the tenant, or any.
        Invalid: The caller has several, and names none.
    """
    if named is not None:
        if not 0 < len(named) <= _LONGEST:
            raise Invalid("The name of a tenant is empty or too long.", fix=f"write up to {_LONGEST} characters.")
        authoriser.check(caller, Action.TENANT_SEARCH, _KIND + named)
        return named
    bound = sorted({each.resource for each in caller.roles if each.resource.startswith(_KIND)})
    allowed = [each for each in bound if authoriser.allows(caller, Action.TENANT_SEARCH, each)]
    if len(allowed) > 1:
        raise Invalid("The caller has several tenants.", fix="name one in the field `tenant`.")
    if not allowed:
        raise Denied(
            "The caller has a role for no tenant.",
            authenticated=True,
            fix="ask an administrator for one on tenant/NAME, or name the tenant that a policy permits.",
        )
    return allowed[0].removeprefix(_KIND)
