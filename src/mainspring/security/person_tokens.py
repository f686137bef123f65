"""Tokens of people: the ID tokens that the command line got by a sign-in, shown to the control plane."""

from __future__ import annotations

from mainspring.core.errors import Denied
from mainspring.security.oidc import Provider, Tokens
from mainspring.security.ports import Accounts
from mainspring.security.tokens import LEEWAY_US, audiences_of, expiry, parse


class PersonTokens:
    """People by their tokens of one provider.

    Args:
        provider: With the client of the command line: tokens for another client are not taken.
    """

    def __init__(self, provider: Provider, accounts: Accounts) -> None:
        self._provider = provider
        self._accounts = accounts

    def identify(self, text: str) -> tuple[str, int] | None:
        """Return the id of the account of a token's person, and until when it is valid (UTC epoch microseconds); `None`
        if it is of another issuer or client.

        An account is not made here: one that was removed stays so until the person signs in again.

        Raises:
            NotAccepted: It is not valid.
            Denied: The person is not admitted, or has no account.
            Unchecked, Unavailable: See `Issuer.verify`.
        """
        token = parse(text)
        ours = token.claims.get("iss") == self._provider.issuer.url
        if not ours or self._provider.client not in audiences_of(token.claims):
            return None
        identity = self._provider.identify(Tokens(text, "", "", 0), None)
        account = self._accounts.of_subject(identity.issuer, identity.subject)
        if account is None:
            raise Denied("There is no account of this person.", fix="run `mainspring login`.")
        return account.id, expiry(token.claims) + LEEWAY_US
