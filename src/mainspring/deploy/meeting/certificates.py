"""Certificates of the machines of one training. Each makes one for as long as it takes part, and trusts announced ones.

The private key never leaves its process, so what is announced to the others is no secret.
"""

from __future__ import annotations

import hashlib
import secrets
import ssl
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from mainspring.core.time import to_datetime

_VALID = timedelta(days=365)  # longer than a training; nobody trusts it once it is withdrawn
_SKEW = timedelta(days=1)  # between the clocks of machines


@dataclass(frozen=True, slots=True)
class Certificate:
    """Certificate of this process, in PEM, with its private key."""

    pem: str
    key: bytes = field(repr=False)

    @property
    def digest(self) -> str:
        return digest(ssl.PEM_cert_to_DER_cert(self.pem))

    def context(self, trusted: Iterable[str], *, server: bool) -> ssl.SSLContext:
        """Return a context of connections with holders of `trusted` certificates, in PEM, and with nobody else."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # it is known by its certificate, whatever its name
        context.verify_mode = ssl.CERT_REQUIRED
        with tempfile.TemporaryDirectory(prefix="mainspring-") as folder:  # ssl reads files alone
            file = Path(folder) / "own.pem"
            file.touch(0o600)
            file.write_bytes(self.key + self.pem.encode())
            context.load_cert_chain(file)
        if server:
            context.num_tickets = 0  # nobody comes back to a session
        if every := "".join(trusted):
            context.load_verify_locations(cadata=every)
        return context


def digest(certificate: bytes) -> str:
    """Return the SHA-256 of a certificate in DER."""
    return hashlib.sha256(certificate).hexdigest()


def parsed(pem: str) -> bytes | None:
    """Return a certificate in DER; `None` if the text is not one certificate in PEM."""
    try:
        every = x509.load_pem_x509_certificates(pem.encode("ascii"))
    except ValueError:
        return None
    return every[0].public_bytes(Encoding.DER) if len(every) == 1 else None


def make(now: int) -> Certificate:
    """Make a certificate that signs itself.

    Args:
        now: UTC epoch microseconds.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, secrets.token_hex(16))])  # one trusted name, one key
    made = (
        x509.CertificateBuilder(subject_name=subject, issuer_name=subject, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(to_datetime(now) - _SKEW)
        .not_valid_after(to_datetime(now) + _VALID)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Certificate(made.public_bytes(Encoding.PEM).decode(), private)
