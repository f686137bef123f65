"""TLS certificates of a client, as PEM files: trusted authorities, and its own certificate."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mainspring.core.errors import Invalid

if TYPE_CHECKING:
    import ssl

_REFUSED = re.compile(r"ALERT_\w*(CERTIFICATE|UNKNOWN_CA)")  # alerts of the server about our certificate


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files.

    Args:
        ca: Authorities, one of which must have signed the server's certificate; by default the system's.
        cert: The client's certificate chain, for servers that require one: its own certificate, then the intermediates.
        key: Its unencrypted private key; omit it if `cert` contains it.
    """

    ca: str | Path | None = None
    cert: str | Path | None = None
    key: str | Path | None = None

    def context(self) -> ssl.SSLContext:
        """Return an SSL context with these certificates.

        Raises:
            Invalid: A file cannot be read, is not PEM, or the key is not that of the certificate.
        """
        import ssl

        try:
            context = ssl.create_default_context(cafile=None if self.ca is None else str(self.ca))
        except (OSError, ssl.SSLError) as error:
            raise Invalid(_told("authority", self.ca, error), fix="name a PEM file of certificates.") from None
        self.show_in(context)
        return context

    def show_in(self, context: ssl.SSLContext) -> None:
        """Add the client's certificate, if there is one, to `context`; raises as `context` does."""
        import ssl

        if self.cert is None:
            if self.key is not None:
                raise Invalid(f"There is a key, {self.key}, and no certificate.", fix="name its certificate too.")
            return
        try:
            # For an encrypted key OpenSSL would ask at the terminal.
            context.load_cert_chain(self.cert, self.key, password=lambda: b"")
        except (OSError, ssl.SSLError) as error:
            files = " with the key ".join(str(each) for each in (self.cert, self.key) if each is not None)
            raise Invalid(
                _told("client's certificate", files, error),
                fix="name the PEM files of a certificate and of its key, not encrypted.",
            ) from None


def server_is_distrusted(why: str) -> bool:
    """Return whether an error's text says that the server's certificate was not accepted."""
    return "CERTIFICATE_VERIFY_FAILED" in why


def client_is_refused(why: str) -> bool:
    """Return whether an error's text says that the server did not accept the client's certificate, or wants one."""
    return _REFUSED.search(why) is not None


def _told(what: str, files: str | Path | None, error: OSError) -> str:
    why = getattr(error, "reason", None) or error.strerror or "it is not PEM"
    return f"The {what} {files} cannot be used: {str(why).replace('_', ' ').lower()}."
