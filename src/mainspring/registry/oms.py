"""Signatures of models in the format of OpenSSF Model Signing 1.0, which other tools make and verify.

`model.sig` is a Sigstore bundle in JSON. In it is a DSSE envelope (ECDSA over P-256, P-384 or P-521), in this an
in-toto statement with the SHA-256 of each file of a folder; a single file has the name `.`. The bundle names a public
key, or has the certificates that vouch for it. Signatures without a key, by Sigstore's services, are not verified here.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID

from mainspring.core.errors import Corrupt, Denied, Invalid
from mainspring.core.json_content import decoded
from mainspring.core.time import SECOND
from mainspring.security.secrets import read_private

SIGNATURE = "model.sig"
ONLY = "."  # name of a single file
_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_PREDICATE_TYPE = "https://model_signing/signature/v1.0"
_LARGEST = 64 * 1024**2  # bytes of a signature: some hundred thousand files
_HASHES: Mapping[str, type[hashes.HashAlgorithm]] = {
    "secp256r1": hashes.SHA256, "secp384r1": hashes.SHA384, "secp521r1": hashes.SHA512,
}  # fmt: skip
_UNREADABLE = (
    ValueError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType,
)  # fmt: skip
_Kind = TypeVar("_Kind")
_PUBLIC = re.compile(rb"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)
_AGAIN = "get the model again from its signer."
_CURVES = "use a key on P-256, P-384 or P-521: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256."


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key, and the certificates that vouch for it, its own first; none for a bare key."""

    key: ec.EllipticCurvePrivateKey
    certificates: tuple[x509.Certificate, ...] = ()

    @property
    def name(self) -> str:
        """The name of the signer in `Signed`."""
        certified = [each.subject.rfc4514_string() for each in self.certificates]
        return certified[0] if certified else f"key {_hint(self.key.public_key())}"


@dataclass(frozen=True, slots=True)
class Trusted:
    """Public keys whose signatures count, and authorities whose certificates do."""

    keys: tuple[ec.EllipticCurvePublicKey, ...]
    authorities: tuple[x509.Certificate, ...]


@dataclass(frozen=True, slots=True)
class Signed:
    """Files that a trusted signer has signed.

    Attributes:
        signer: Subject of the certificate, or `key` and the SHA-256 of the public key's PEM.
        files: SHA-256 by name.
        ignored: Paths that the signature leaves out.
    """

    signer: str
    files: Mapping[str, str]
    ignored: tuple[str, ...]


class _Key(msgspec.Struct):
    hint: str | None = None


class _Certificate(msgspec.Struct, rename="camel"):
    raw_bytes: bytes


class _Chain(msgspec.Struct):
    certificates: list[_Certificate]


class _Material(msgspec.Struct, rename={"public_key": "publicKey", "chain": "x509CertificateChain"}):
    public_key: _Key | None = None
    chain: _Chain | None = None


class _Signature(msgspec.Struct):
    sig: bytes


class _Envelope(msgspec.Struct, rename="camel"):
    payload: bytes
    payload_type: str
    signatures: list[_Signature]


class _Bundle(msgspec.Struct, rename="camel"):
    media_type: str
    verification_material: _Material
    dsse_envelope: _Envelope


class _Subject(msgspec.Struct):
    name: str
    digest: dict[str, str]


class _Resource(msgspec.Struct):
    name: str
    algorithm: str
    digest: str


class _Serialization(msgspec.Struct):
    method: str
    hash_type: str
    allow_symlinks: bool = False
    ignore_paths: list[str] = []


class _Predicate(msgspec.Struct):
    serialization: _Serialization
    resources: list[_Resource]


class _Statement(msgspec.Struct, rename={"type": "_type", "predicate_type": "predicateType"}):
    type: str
    subject: list[_Subject]
    predicate_type: str
    predicate: _Predicate


def read_signer(key: Path, certificates: Path | None = None) -> Signer:
    """Return the signer whose private key, in PEM, is in a file that only its owner may read.

    Args:
        certificates: PEM of the key's certificate and of the intermediate ones, in this order.

    Raises:
        Invalid: There is no such key or certificate, or the certificate is another key's or for no signatures.
    """
    content = read_private(key, "signing key")
    try:
        private = serialization.load_pem_private_key(content, None)
    except TypeError:
        raise Invalid(f"The signing key {key} has a password.", fix="give a private file without one.") from None
    except (ValueError, UnsupportedAlgorithm):
        raise Invalid(f"{key} has no private key in PEM.", fix=_CURVES) from None
    if not isinstance(private, ec.EllipticCurvePrivateKey) or private.curve.name not in _HASHES:
        raise Invalid(f"Nobody verifies signatures by the key {key} in this format.", fix=_CURVES)
    if certificates is None:
        return Signer(private)
    chain = _certificates(certificates)
    try:
        fits = chain[0].public_key() == private.public_key() and _may_sign(chain[0])
    except _UNREADABLE:
        fits = False
    if not fits:
        raise Invalid(
            f"The first certificate in {certificates} is not one for signatures by {key}.",
            fix="give the key's certificate first, with the usage digitalSignature or codeSigning.",
        )
    return Signer(private, tuple(chain))


def read_trusted(path: Path) -> Trusted:
    """Return the public keys and certificates of authorities in a PEM file.

    Raises:
        Invalid: It has none, or another kind of key.
    """
    try:
        content = path.read_bytes()
        keys = [serialization.load_pem_public_key(each) for each in _PUBLIC.findall(content)]
    except OSError as error:
        raise Invalid(f"{path} cannot be read: {error.strerror}.", fix="name a file with public keys.") from None
    except (ValueError, UnsupportedAlgorithm):
        raise Invalid(f"{path} has a public key that cannot be read.", fix=_CURVES) from None
    elliptic = [each for each in keys if isinstance(each, ec.EllipticCurvePublicKey) and each.curve.name in _HASHES]
    if len(elliptic) < len(keys):
        raise Invalid(f"{path} has a key that signs no models in this format.", fix=_CURVES)
    return Trusted(tuple(elliptic), tuple(_certificates(path)) if not elliptic or b"CERTIFICATE" in content else ())


def sign(name: str, files: Mapping[str, str], signer: Signer) -> bytes:
    """Return the content of `model.sig`.

    Args:
        name: The model's.
        files: SHA-256 by path relative to the folder.
    """
    ordered = sorted(files.items())
    root = hashlib.sha256(b"".join(bytes.fromhex(digest) for _, digest in ordered)).hexdigest()
    statement = _Statement(
        _STATEMENT_TYPE,
        [_Subject(name, {"sha256": root})],
        _PREDICATE_TYPE,
        _Predicate(
            _Serialization("files", "sha256", allow_symlinks=False, ignore_paths=[SIGNATURE]),
            [_Resource(path, "sha256", digest) for path, digest in ordered],
        ),
    )
    payload = msgspec.json.encode(statement)
    signature = signer.key.sign(encoded(payload), _ecdsa(signer.key.public_key()))
    if signer.certificates:
        raw = [base64.b64encode(each.public_bytes(serialization.Encoding.DER)) for each in signer.certificates]
        material: dict[str, Any] = {
            "x509CertificateChain": {"certificates": [{"rawBytes": each.decode()} for each in raw]}
        }
    else:
        material = {"publicKey": {"hint": _hint(signer.key.public_key())}}
    return msgspec.json.encode(
        {
            "mediaType": _MEDIA_TYPE,
            "verificationMaterial": {**material, "tlogEntries": []},
            "dsseEnvelope": {
                "payload": base64.b64encode(payload).decode(),
                "payloadType": _PAYLOAD_TYPE,
                "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
            },
        }
    )


def open_signature(path: Path, trusted: Trusted, now: int) -> Signed:
    """Return what the signature in a file signs.

    Args:
        now: UTC epoch microseconds, at which certificates have to be valid: nothing says when a model was signed.

    Raises:
        Denied: There is none, or nobody who is trusted made it.
        Corrupt: It is no signature, or one of another kind.
    """
    if path.exists() and not path.is_file():
        raise _no_signature(path, "it is no plain file")
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise Denied(
            f"The signature {path} cannot be read: {error.strerror}.", authenticated=True, fix="name its file."
        ) from None
    bundle = _read(content, _Bundle, path)
    envelope = bundle.dsse_envelope
    if (bundle.media_type, envelope.payload_type, len(envelope.signatures)) != (_MEDIA_TYPE, _PAYLOAD_TYPE, 1):
        raise _no_signature(path, "it is a bundle of another kind")
    key, signer = _key_of(bundle.verification_material, trusted, now, path)
    try:
        key.verify(envelope.signatures[0].sig, encoded(envelope.payload), _ecdsa(key))
    except InvalidSignature:
        raise Denied(
            f"The signature {path} does not match: it was changed, or made with another key.",
            authenticated=True,
            fix=_AGAIN,
        ) from None
    return _opened(_read(envelope.payload, _Statement, path), signer, path)


def signature_of(path: Path) -> Path:
    """Return where the signature of a folder, or of a file, is by default: in it, beside it, or that of its folder."""
    beside = path.with_name(path.name + ".sig")
    return path / SIGNATURE if path.is_dir() else beside if beside.exists() else path.with_name(SIGNATURE)


def check(path: Path, signed: Signed, signature: Path) -> None:
    """Raise unless a folder is exactly what was signed, or a file one of it.

    Raises:
        Corrupt: A file was changed, added or removed, or is a link or no plain file.
    """
    if path.is_symlink() or not path.is_dir():
        check_file(path, _digest(path), signed)
        return
    found = _digests(path, [*signed.ignored, *([signature.name] if signature.parent == path else ())])
    for names, what in (
        (signed.files.keys() - found.keys(), "lacks"),
        (found.keys() - signed.files.keys(), "has what was not signed:"),
        ({name for name in found if signed.files.get(name, found[name]) != found[name]}, "has changed files:"),
    ):
        if names:
            raise Corrupt(f"{path} {what} {', '.join(sorted(names)[:10])}.", fix=_AGAIN)


def check_file(path: Path, digest: str, signed: Signed) -> None:
    """Raise unless a file with this SHA-256 was signed, alone or in its folder.

    Raises:
        Corrupt: It was not.
    """
    if digest != signed.files.get(ONLY, signed.files.get(path.name)):
        raise Corrupt(f"{path} is not what was signed.", fix=_AGAIN)


def _digests(folder: Path, ignored: Collection[str]) -> dict[str, str]:
    """Return the SHA-256 of every file in a folder by its name there; a link is refused also where it is ignored."""
    left = [PurePosixPath(each) for each in ignored]
    names = ((each, each.relative_to(folder).as_posix()) for each in _files(folder))
    return {name: _digest(each) for each, name in names if not any(PurePosixPath(name).is_relative_to(i) for i in left)}


def _files(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        mode = entry.lstat().st_mode
        if stat.S_ISDIR(mode):
            yield from _files(entry)
        elif stat.S_ISREG(mode):
            yield entry
        else:
            raise _no_file(entry)


def _digest(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        raise _no_file(path) from None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _no_file(path)
        return hashlib.file_digest(file, "sha256").hexdigest()


def _key_of(material: _Material, trusted: Trusted, now: int, path: Path) -> tuple[ec.EllipticCurvePublicKey, str]:
    """Return the trusted key that has to have signed, and its name."""
    if material.chain is not None and material.chain.certificates:
        return _certified(material.chain, trusted.authorities, now, path)
    if material.public_key is None:
        raise _no_signature(path, "it names no key; one by Sigstore's services is verified by `model_signing verify`")
    by_hint = {_hint(each): each for each in trusted.keys}
    hint = material.public_key.hint or (next(iter(by_hint)) if len(by_hint) == 1 else "")
    if hint not in by_hint:
        raise Denied(
            f"The signature {path} is by a key that is not trusted: {hint[:64] or 'unknown'}.",
            authenticated=True,
            fix="name the file with the signer's public key.",
        )
    return by_hint[hint], f"key {hint}"


def _certified(
    chain: _Chain, authorities: Sequence[x509.Certificate], now: int, path: Path
) -> tuple[ec.EllipticCurvePublicKey, str]:
    try:
        leaf, *rest = (x509.load_der_x509_certificate(each.raw_bytes) for each in chain.certificates)
        if not authorities:
            raise ValueError("no authority is trusted")
        policy = verification.ExtensionPolicy
        builder = verification.PolicyBuilder().store(verification.Store([*authorities]))
        builder = builder.time(datetime.fromtimestamp(now / SECOND, UTC)).extension_policies(
            ca_policy=policy.webpki_defaults_ca(), ee_policy=policy.permit_all()
        )
        builder.build_client_verifier().verify(leaf, rest)
        key = leaf.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _HASHES or not _may_sign(leaf):
            raise ValueError("it is not for signatures")
        return key, leaf.subject.rfc4514_string()
    except (*_UNREADABLE, verification.VerificationError) as error:
        raise Denied(
            f"The certificate in {path} is not trusted: {error}.",
            authenticated=True,
            fix="name the file with its authority's certificate; one that has expired signs again.",
        ) from None


def _may_sign(certificate: x509.Certificate) -> bool:
    """Return whether a certificate is for signatures by each of the usages that it has, of which it has one.

    An authority's certificates for TLS have `digitalSignature` too, and an extended usage that is another.
    """
    uses = [each.value for each in certificate.extensions]
    found = [each.digital_signature for each in uses if isinstance(each, x509.KeyUsage)]
    found += [ExtendedKeyUsageOID.CODE_SIGNING in each for each in uses if isinstance(each, x509.ExtendedKeyUsage)]
    return bool(found) and all(found)


def _opened(statement: _Statement, signer: str, path: Path) -> Signed:
    how, resources = statement.predicate.serialization, statement.predicate.resources
    if (statement.type, statement.predicate_type) != (_STATEMENT_TYPE, _PREDICATE_TYPE):
        raise _no_signature(path, "it signs something else than a model")
    if (how.method, how.hash_type) != ("files", "sha256") or any(each.algorithm != "sha256" for each in resources):
        raise _no_signature(path, f"of its files it has {how.method} by {how.hash_type}, not the SHA-256 of each")
    try:
        root = hashlib.sha256(b"".join(bytes.fromhex(each.digest) for each in resources)).hexdigest()
    except ValueError:
        root = ""
    files = {each.name: each.digest for each in resources}
    if [each.digest.get("sha256") for each in statement.subject] != [root] or len(files) != len(resources) or not files:
        raise _no_signature(path, "its files are not those of its digest")
    return Signed(signer, files, tuple(how.ignore_paths))


def _read(content: bytes, kind: type[_Kind], path: Path) -> _Kind:
    if len(content) > _LARGEST:
        raise _no_signature(path, f"it has over {_LARGEST} bytes")
    try:
        return decoded(content, kind)
    except msgspec.DecodeError as error:
        raise _no_signature(path, str(error)) from None


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, *_UNREADABLE):
        raise Invalid(f"{path} has no public key or certificate in PEM.", fix="name a file with one or more.") from None


def _ecdsa(key: ec.EllipticCurvePublicKey) -> ec.ECDSA:
    return ec.ECDSA(_HASHES[key.curve.name]())


def _hint(key: ec.EllipticCurvePublicKey) -> str:
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(pem).hexdigest()


def encoded(payload: bytes) -> bytes:
    """Return what an envelope's signature is over (DSSE 1.0, PAE)."""
    return b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD_TYPE), _PAYLOAD_TYPE.encode(), len(payload), payload)


def _no_signature(path: Path, why: str) -> Corrupt:
    return Corrupt(f"{path} is not the signature of a model: {why}.", fix=_AGAIN)


def _no_file(path: Path) -> Corrupt:
    return Corrupt(f"{path} is a link or no plain file: nobody signs it.", fix=_AGAIN)
