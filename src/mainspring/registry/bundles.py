"""Bundles: a model as files that cannot run code, addressed by a digest and signed by the project's key.

On disk a bundle is a blob named by its digest: the payload files, `manifest.json`, which lists the SHA-256 of each,
and `signature`, the Ed25519 signature of `manifest.json`. The digest is the SHA-256 of `manifest.json`, so it
determines every byte. Nothing in a bundle is used before all of this has been verified.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

import msgspec

from mainspring.core.errors import Corrupt, Invalid, NotFound
from mainspring.core.json_content import decoded
from mainspring.registry.flavours import MODEL_FILES, check_model
from mainspring.registry.model import Bundle, Manifest
from mainspring.registry.ports import Blobs
from mainspring.security import signing

FORMAT = 1
MANIFEST = "manifest.json"
SIGNATURE = "signature"
MODEL = "model.onnx"
FEATURES = "features.json"
REFERENCE = "reference.json"
GOLDEN = "golden.json"
HOLDOUT = "holdout.parquet"
TOKENIZER = "tokenizer.json"  # of an encoder of texts
ALLOWED = MODEL_FILES | {FEATURES, REFERENCE, GOLDEN, HOLDOUT, TOKENIZER}

_LATER = frozenset({"tensors", "output_tensors", "code", "graph", "curve"})
_DIGEST = re.compile(r"[0-9a-f]{64}")


def check_digest(text: str) -> str:
    """Return `text` if it is a digest.

    Raises:
        Invalid: `text` is not 64 lower-case hexadecimal digits.
    """
    if not _DIGEST.fullmatch(text):
        raise Invalid(f"{text[:80]!r} is not the digest of a bundle.", fix="give 64 hexadecimal digits.")
    return text


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the manifest's canonical JSON: fields and keys sorted, no spaces, UTF-8.

    Fields added after the first release are written only if they have a value. So a bundle sealed before keeps its
    digest, and an earlier release can read every manifest that it can serve.
    """
    fields = msgspec.to_builtins(manifest)
    return msgspec.json.encode(
        {name: value for name, value in fields.items() if value or name not in _LATER}, order="sorted"
    )


def seal(manifest: Manifest, files: Mapping[str, bytes], key: signing.SigningKey) -> Bundle:
    """Sign `files` as a bundle. `manifest.format` and `manifest.files` are filled in here.

    Raises:
        Invalid: A file name is not allowed in a bundle.
        Corrupt: The model is missing, or does not match its flavour (see `flavours.check_model`).
    """
    wrong = set(files) - ALLOWED
    if wrong:
        raise Invalid(
            f"The bundle of {manifest.model!r} cannot contain {sorted(wrong)}.",
            fix=f"the files of a bundle are {sorted(ALLOWED)}.",
        )
    check_model(manifest, files)
    hashes = {name: sha256(files[name]) for name in sorted(files)}
    sealed = msgspec.structs.replace(manifest, format=FORMAT, files=hashes)
    content = encode_manifest(sealed)
    digest = sha256(content)
    return Bundle(digest, sealed, dict(files), key.sign(content), looked_through=digest)


class Bundles:
    """Bundles in a blob store, verified when saved and when loaded.

    Args:
        public_key: Raw Ed25519 public key of the project, 32 bytes; a bundle must carry its signature.
    """

    def __init__(self, blobs: Blobs, public_key: bytes) -> None:
        self._blobs = blobs
        self._public_key = public_key

    def save(self, bundle: Bundle) -> None:
        """Store a bundle; an existing one stays unchanged.

        Every byte is hashed again. The content of the model's file is checked only if `seal`, `load` or `open_blob` has
        not already checked the same bytes.

        Raises:
            Corrupt: The bundle is inconsistent, or another key signed it.
            StorageFull: No space; nothing was stored.
        """
        blob = blob_of(bundle)
        open_blob(bundle.digest, blob, self._public_key, looked_through=bundle.looked_through)
        self._blobs.put(bundle.digest, blob)

    def load(self, digest: str) -> Bundle:
        """Return the bundle with this digest, verified.

        Raises:
            Invalid: `digest` is not a digest.
            NotFound: The bundle does not exist.
            Corrupt: A file or the signature differs from the sealed bundle; the message says which.
        """
        try:
            blob = self._blobs.get(check_digest(digest))
        except NotFound as error:
            raise NotFound(
                error.what, fix="restore the bundle from a backup, or check `blobs` in the profile."
            ) from error
        return open_blob(digest, blob, self._public_key)


def blob_of(bundle: Bundle) -> dict[str, bytes]:
    """Return the files of a bundle as they are stored."""
    return {**bundle.files, MANIFEST: encode_manifest(bundle.manifest), SIGNATURE: bundle.signature}


def open_blob(digest: str, blob: Mapping[str, bytes], public_key: bytes, *, looked_through: str = "") -> Bundle:
    """Return the bundle in `blob`, after verifying every file against `digest` and the key.

    Args:
        looked_through: See `Bundle.looked_through`. If it equals `digest`, the model's file is not checked again: a
            digest determines every byte, and all hashes are verified here.

    Raises:
        Corrupt: See `Bundles.load`.
    """
    bundle = f"bundle {digest[:12]}"
    for name in (MANIFEST, SIGNATURE):
        if name not in blob:
            raise _damaged(f"The {bundle} lacks the file {name}.")
    content = blob[MANIFEST]
    if sha256(content) != digest:
        raise _damaged(f"The manifest of {bundle} was changed: its SHA-256 is {sha256(content)[:12]}….")
    try:
        signing.verify(public_key, blob[SIGNATURE], content)
    except Corrupt as error:
        raise _damaged(f"The signature of {bundle} was not made by this project's key.") from error
    manifest = _read_manifest(content, bundle)
    payload = {name: blob[name] for name in blob if name not in (MANIFEST, SIGNATURE)}
    _check_names(set(payload), set(manifest.files), bundle)
    for name, expected in manifest.files.items():
        if sha256(payload[name]) != expected:
            raise _damaged(f"The file {name} of {bundle} was changed.")
    if looked_through != digest:
        check_model(manifest, payload, f" of {bundle}")
    return Bundle(digest, manifest, payload, blob[SIGNATURE], looked_through=digest)


def _read_manifest(content: bytes, bundle: str) -> Manifest:
    try:
        manifest = decoded(content, Manifest)
    except msgspec.DecodeError as error:
        raise _damaged(f"The manifest of {bundle} cannot be read: {error}.") from error
    if manifest.format != FORMAT:
        raise Corrupt(
            f"The {bundle} has the format {manifest.format}; this version reads {FORMAT}.",
            fix="upgrade mainspring, or train the model again.",
        )
    return manifest


def _check_names(present: set[str], listed: set[str], bundle: str) -> None:
    for names, what in (
        (listed - present, "lacks the file"),
        (present - listed, "has a file that is not in its manifest:"),
        (listed - ALLOWED, "lists a file that is not allowed in a bundle:"),
    ):
        if names:
            raise _damaged(f"The {bundle} {what} {', '.join(sorted(names))}.")


def _damaged(what: str) -> Corrupt:
    return Corrupt(what, fix="restore the bundle from a backup, or train the model again.")
