"""Check of a server's certificate and key before they are served."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from mainspring.core.errors import Invalid
from mainspring.core.settings import Tls
from mainspring.core.time import from_datetime, to_datetime
from mainspring.security.secrets import read_private


@dataclass(frozen=True, slots=True)
class Checked:
    """A certificate that passed: the earliest end of its whole chain, UTC epoch microseconds, and its own DER."""

    expires: int
    leaf: bytes


def check(tls: Tls, *, now: int) -> Checked:
    """Check that the certificate can be served, and return its expiry.

    Args:
        now: UTC epoch microseconds.

    Raises:
        Invalid: A file is missing, is not PEM, is readable by others, has expired, or the key does not match; the
            message names the file and the fix.
    """
    chain = _certificates(tls.cert, "certificate")
    authorities = _certificates(tls.client_ca, "certificate authority of clients") if tls.client_ca else []
    _check_key(tls, chain[0])
    for path, certificates in ((tls.cert, chain), (tls.client_ca or tls.cert, authorities)):
        for each in certificates:
            _check_time(path, each, now)
    expires = min(from_datetime(each.not_valid_after_utc) for each in (*chain, *authorities))
    return Checked(expires, chain[0].public_bytes(Encoding.DER))


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Invalid(
            f"The {what} {path} cannot be read: {error.strerror}.", fix="put the file there, or correct the profile."
        ) from None


def _certificates(path: Path, what: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_read(path, what))
    except ValueError:
        raise Invalid(
            f"The {what} {path} is not a PEM certificate.", fix="write it as -----BEGIN CERTIFICATE-----, leaf first."
        ) from None


def _check_key(tls: Tls, certificate: x509.Certificate) -> None:
    content = read_private(tls.key, "key")
    try:
        key = load_pem_private_key(content, password=None)
    except TypeError:
        raise Invalid(
            f"The key {tls.key} is encrypted.", fix=f"decrypt it: `openssl pkey -in {tls.key} -out plain.key`."
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise Invalid(f"The key {tls.key} is not a PEM key.", fix="write it as -----BEGIN PRIVATE KEY-----.") from None
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        raise Invalid(
            f"The key {tls.key} does not belong to the certificate {tls.cert}.",
            fix="give both files of one pair; the server's own certificate must be the first in its file.",
        )


def _check_time(path: Path, certificate: x509.Certificate, now: int) -> None:
    subject = certificate.subject.rfc4514_string() or "without a name"
    if from_datetime(certificate.not_valid_after_utc) <= now:
        raise Invalid(
            f"The certificate {subject} in {path} expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC.",
            fix="renew the certificate and replace the file.",
        )
    if from_datetime(certificate.not_valid_before_utc) > now:
        raise Invalid(
            f"The certificate {subject} in {path} is valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} "
            f"UTC; it is {to_datetime(now):%Y-%m-%d %H:%M} UTC.",
            fix="set this machine's clock, or use a certificate that is already valid.",
        )
