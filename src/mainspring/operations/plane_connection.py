"""HTTP requests of this program to its own planes."""

from __future__ import annotations

import http.client
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from mainspring.client.certificates import Certificates
from mainspring.core.settings import Address, Tls

if TYPE_CHECKING:
    import ssl


def connect(
    address: Address, tls: Tls | None, *, timeout_s: float = 30.0, certificates: Certificates | None = None
) -> http.client.HTTPConnection:
    """Return a connection, not opened yet, with TLS if the plane has it.

    Only the plane's own certificate, the first of a file on this machine, is trusted, so its names do not matter. If
    `certificates` have an authority, it is trusted instead. A plane that wants to see a certificate is shown its own if
    `certificates` have none and this user can read the key: parts of one installation often have one authority.

    Raises:
        Invalid: A file of `certificates` cannot be used.
    """
    if tls is None:
        return http.client.HTTPConnection(address.here.host, address.port, timeout=timeout_s)
    import ssl

    certificates = certificates or Certificates()
    if certificates.ca is not None:
        return _secure(address, certificates.context(), timeout_s)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if certificates.cert is None and tls.client_ca is not None and os.access(tls.key, os.R_OK):
        certificates = replace(certificates, cert=tls.cert, key=tls.key)
    certificates.show_in(context)
    context.minimum_version = ssl.TLSVersion.TLSv1_2 if tls.allows_1_2 else ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    # Not the intermediates that follow it: what else they signed is not this plane.
    begin, end, _ = tls.cert.read_text().partition("-----END CERTIFICATE-----")
    context.load_verify_locations(cadata=begin + end)
    return _secure(address, context, timeout_s)


def answers(address: Address, path: str) -> bool:
    """Return whether a GET of `path` gets 200 within a second, or is disconnected for lack of a client certificate."""
    connection = _probe(address)
    met = False
    try:
        connection.connect()
        met = True
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except TimeoutError:
        return False
    except (OSError, http.client.HTTPException):
        # With TLS 1.3 a caller learns only after the handshake that its certificate is missing or not accepted.
        return met and address.secure
    finally:
        connection.close()


def served(address: Address) -> bytes | None:
    """Return the certificate (DER) that a plane shows, `None` if it does not answer within a second."""
    import ssl

    connection = _probe(address)
    try:
        connection.connect()
        return connection.sock.getpeercert(binary_form=True) if isinstance(connection.sock, ssl.SSLSocket) else None
    except OSError:
        return None
    finally:
        connection.close()


def _probe(address: Address) -> http.client.HTTPConnection:
    if not address.secure:
        return http.client.HTTPConnection(address.here.host, address.port, timeout=1.0)
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # any server: nothing confidential is sent
    return _secure(address, context, 1.0)


def _secure(address: Address, context: ssl.SSLContext, timeout_s: float) -> http.client.HTTPConnection:
    return http.client.HTTPSConnection(address.here.host, address.port, timeout=timeout_s, context=context)
