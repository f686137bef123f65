"""Signers of models: keys, and certificates by an authority of their own."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID, ObjectIdentifier

from kit.certificates import write

MADE = datetime(2026, 1, 1, tzinfo=UTC)  # from when certificates are valid, for 30 days


def write_signer(
    folder: Path, name: str = "signer", curve: ec.EllipticCurve | None = None
) -> ec.EllipticCurvePrivateKey:
    """Write a key as `NAME.pem`, private to its owner, and `NAME.pub.pem`."""
    key = ec.generate_private_key(ec.SECP256R1() if curve is None else curve)
    pem = serialization.Encoding.PEM
    content = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write(folder / f"{name}.pem", content)
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pub.pem").write_bytes(public)
    return key


def write_certificates(
    folder: Path, key: ec.EllipticCurvePrivateKey, *, signs: bool = True, extended: Sequence[ObjectIdentifier] = ()
) -> None:
    """Write `authority.pem`, and `signer.chain.pem` with the certificate of a key and an intermediate one.

    Args:
        signs: Whether the certificate is for signatures.
        extended: Its extended usages; none: it says nothing of them.
    """
    above, between = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root = _certificate("authority", above, "authority", above, ca=True)
    chain = [
        _certificate("signer", key, "between", between, ca=False, signs=signs, extended=extended),
        _certificate("between", between, "authority", above, ca=True),
    ]
    pem = serialization.Encoding.PEM
    (folder / "authority.pem").write_bytes(root.public_bytes(pem))
    (folder / "signer.chain.pem").write_bytes(b"".join(each.public_bytes(pem) for each in chain))


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    by: ec.EllipticCurvePrivateKey,
    *,
    ca: bool,
    signs: bool = True,
    extended: Sequence[ObjectIdentifier] = (),
) -> x509.Certificate:
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "encipher_only", "decipher_only"), False
    )
    builder = (
        x509.CertificateBuilder(serial_number=x509.random_serial_number())
        .subject_name(_named(name))
        .issuer_name(_named(issuer))
        .public_key(key.public_key())
        .not_valid_before(MADE)
        .not_valid_after(MADE + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=signs and not ca, key_agreement=not signs, key_cert_sign=ca, crl_sign=ca, **usage
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
    )
    if extended:
        builder = builder.add_extension(x509.ExtendedKeyUsage(extended), critical=False)
    return builder.sign(by, hashes.SHA256())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
