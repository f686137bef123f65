"""Signatures of models: those of `model_signing` verified here, ours there, and what was changed refused by both."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from environments import PEERS, recorded
from kit.certificates import write
from kit.depth import deep
from kit.model_signers import MADE, write_certificates, write_signer
from mainspring.core.errors import Corrupt, Denied, Invalid
from mainspring.core.time import DAY, from_datetime
from mainspring.registry import oms

RECORDED = json.loads((Path(__file__).parent / "oms_recorded.json").read_text())
NOW = from_datetime(MADE) + DAY
WAYS = tuple(RECORDED["signatures"])
MODEL_SIGNING = PEERS / "model-signing"
with_oracle = pytest.mark.skipif(recorded(MODEL_SIGNING) is None, reason="python bench/peers.py model-signing")


def written(folder: Path, way: str) -> tuple[Path, Path, Path]:
    """Write what the library has signed: the model, its signature, and who is trusted."""
    model = folder / "model"
    for name, content in RECORDED["files"].items():
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text(content)
    made = RECORDED["signatures"][way]
    trusted = write(folder / "trusted.pem", made["trusted"].encode())
    path = model / "model.onnx" if way == "file" else model
    signature = oms.signature_of(path) if way != "file" else folder / "model.onnx.sig"
    return path, write(signature, json.dumps(made["signature"]).encode()), trusted


def verify(path: Path, signature: Path, trusted: Path, now: int = NOW) -> oms.Signed:
    signed = oms.open_signature(signature, oms.read_trusted(trusted), now)
    oms.check(path, signed, signature)
    return signed


@pytest.mark.parametrize("way", WAYS)
def test_what_the_library_signed_is_verified(tmp_path: Path, way: str) -> None:
    path, signature, trusted = written(tmp_path, way)
    signed = verify(path, signature, trusted)
    assert signed.signer.startswith("CN=signer" if way == "certificate" else "key ")
    assert signed.files.keys() == ({"."} if way == "file" else RECORDED["files"].keys())


def test_a_statement_is_that_of_the_library(tmp_path: Path) -> None:
    path, signature, trusted = written(tmp_path, "p256")
    theirs = _payload(json.loads(signature.read_text()))
    write_signer(tmp_path)
    ours = oms.sign(path.name, verify(path, signature, trusted).files, oms.read_signer(tmp_path / "signer.pem"))
    mine = _payload(json.loads(ours))
    ignored = [each["predicate"]["serialization"].pop("ignore_paths") for each in (mine, theirs)]
    assert mine == theirs
    assert set(ignored[0]) <= set(ignored[1])


def _payload(bundle: dict[str, Any]) -> Any:
    return json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))


def _renamed(model: Path) -> None:
    (model / "model.onnx").rename(model / "Model.onnx")


def _linked(model: Path) -> None:
    (model / "model.onnx").rename(model.with_name("file of the link"))
    (model / "model.onnx").symlink_to(model.with_name("file of the link"))


def _linked_folder(model: Path) -> None:
    (model / "sub").rename(model.with_name("folder of the link"))
    (model / "sub").symlink_to(model.with_name("folder of the link"))


def _swapped(model: Path) -> None:
    (model / "model.onnx").rename(model / "spare")
    (model / "Sub.txt").rename(model / "model.onnx")
    (model / "spare").rename(model / "Sub.txt")


CHANGES: dict[str, Callable[[Path], object]] = {
    "byte": lambda model: (model / "model.onnx").write_text("weightz"),
    "cut": lambda model: (model / "model.onnx").write_text(""),
    "added": lambda model: (model / "sub" / "more").write_text(""),
    "hidden": lambda model: (model / ".hidden").write_text(""),
    "removed": lambda model: (model / "sub" / "config.json").unlink(),
    "renamed": _renamed,
    "swapped": _swapped,
    "link": _linked,
    "linked folder": _linked_folder,
    "pipe": lambda model: os.mkfifo(model / "pipe"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_folder_is_refused(tmp_path: Path, change: str) -> None:
    path, signature, trusted = written(tmp_path, "p256")
    CHANGES[change](path)
    with pytest.raises(Corrupt):
        verify(path, signature, trusted)


def test_a_link_to_the_folder_or_the_file_is_refused(tmp_path: Path) -> None:
    path, signature, trusted = written(tmp_path, "p256")
    for target in (path, path / "model.onnx"):
        link = tmp_path / "link"
        link.symlink_to(target)
        with pytest.raises(Corrupt, match="is a link"):
            verify(link, signature, trusted)
        link.unlink()
    verify(path / "model.onnx", signature, trusted)  # a file of a signed folder


def test_signatures_of_others_are_refused(tmp_path: Path) -> None:
    for way in WAYS:
        path, signature, _ = written(tmp_path, way)
        write_certificates(tmp_path, write_signer(tmp_path))
        for other in ("signer.pub.pem", "authority.pem"):
            with pytest.raises(Denied):
                verify(path, signature, tmp_path / other)
        shutil.rmtree(tmp_path / "model")


def test_a_signature_that_was_changed_or_is_missing_is_refused(tmp_path: Path) -> None:
    path, signature, trusted = written(tmp_path, "p256")
    good = json.loads(signature.read_text())
    payload = _payload(good)
    payload["predicate"]["resources"][0]["digest"] = "0" * 64
    other = base64.b64encode(json.dumps(payload).encode()).decode()
    changes: list[tuple[tuple[str, ...], Any, type[Exception]]] = [
        (("dsseEnvelope", "payload"), other, Denied),
        (("dsseEnvelope", "payloadType"), "application/json", Corrupt),
        (("dsseEnvelope", "signatures"), [], Corrupt),
        (("dsseEnvelope", "signatures"), good["dsseEnvelope"]["signatures"] * 2, Corrupt),
        (("dsseEnvelope", "signatures"), [{"sig": ""}], Denied),
        (("dsseEnvelope", "signatures"), [{"sig": "?"}], Corrupt),
        (("mediaType",), "application/vnd.dev.sigstore.bundle+json;version=0.2", Corrupt),
        (("verificationMaterial",), {"certificate": {"rawBytes": "AAAA"}, "tlogEntries": []}, Corrupt),
        (("verificationMaterial",), {"x509CertificateChain": {"certificates": [{"rawBytes": "AAAA"}]}}, Denied),
        (("verificationMaterial",), {"publicKey": {"hint": "0" * 64}}, Denied),
        (("verificationMaterial",), _of_version(5), Denied),
    ]
    for names, value, error in changes:
        made = json.loads(json.dumps(good))
        place = made
        for name in names[:-1]:
            place = place[name]
        place[names[-1]] = value
        signature.write_text(json.dumps(made))
        with pytest.raises(error):
            verify(path, signature, trusted)
    for content in (b"", b"{}", b"[" * 100_000, b"\xff"):
        signature.write_bytes(content)
        with pytest.raises(Corrupt):
            verify(path, signature, trusted)
    signature.unlink()
    with pytest.raises(Denied, match="cannot be read"):
        verify(path, signature, trusted)
    os.mkfifo(signature)
    with pytest.raises(Corrupt, match="no plain file"):
        verify(path, signature, trusted)


def _of_version(version: int) -> dict[str, Any]:
    """Return a chain with a certificate of another version of X.509."""
    material: dict[str, Any] = RECORDED["signatures"]["certificate"]["signature"]["verificationMaterial"]
    first, *rest = material["x509CertificateChain"]["certificates"]
    der = base64.b64decode(first["rawBytes"])
    other = der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01" + bytes([version]), 1)
    assert other != der
    return {"x509CertificateChain": {"certificates": [{"rawBytes": base64.b64encode(other).decode()}, *rest]}}


def test_statements_that_say_two_things_are_refused(tmp_path: Path) -> None:
    """A signer that is trusted may still be wrong: what it signed has one meaning, or none."""
    path, signature, _ = written(tmp_path, "p256")
    key = write_signer(tmp_path)
    good = json.loads(oms.sign("model", {"a": "0" * 64, "b": "1" * 64}, oms.Signer(key)))
    changes: list[Callable[[Any], object]] = [
        lambda made: made["predicate"]["resources"].pop(),
        lambda made: made["predicate"]["resources"][1].update(name="a"),
        lambda made: made["predicate"]["resources"][0].update(algorithm="md5"),
        lambda made: made["predicate"]["resources"][0].update(digest="x"),
        lambda made: made["predicate"]["serialization"].update(method="shards"),
        lambda made: made["predicate"]["serialization"].update(hash_type="blake3"),
        lambda made: made.update(predicateType="https://slsa.dev/provenance/v1"),
        lambda made: made.update(_type="https://in-toto.io/Statement/v0.1"),
        lambda made: made.update(subject=made["subject"] * 2),
        lambda made: made.update(subject=[]),
    ]
    for change in changes:
        payload = _payload(good)
        change(payload)
        content = json.dumps(payload).encode()
        made = json.loads(json.dumps(good))
        signed = key.sign(oms.encoded(content), oms._ecdsa(key.public_key()))
        made["dsseEnvelope"]["payload"] = base64.b64encode(content).decode()
        made["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(signed).decode()
        signature.write_text(json.dumps(made))
        with pytest.raises(Corrupt, match="is not the signature of a model"):
            verify(path, signature, tmp_path / "signer.pub.pem")


def test_certificates_have_to_be_valid_now_and_for_signatures(tmp_path: Path) -> None:
    path, signature, trusted = written(tmp_path, "certificate")
    for now in (NOW - 2 * DAY, NOW + 30 * DAY):
        with pytest.raises(Denied, match="not valid"):
            verify(path, signature, trusted, now)
    key = write_signer(tmp_path)
    write_certificates(tmp_path, key, signs=False)
    with pytest.raises(Invalid, match="not one for signatures"):
        oms.read_signer(tmp_path / "signer.pem", tmp_path / "signer.chain.pem")
    chain = tuple(oms._certificates(tmp_path / "signer.chain.pem"))
    signature.write_bytes(oms.sign("model", {"a": "0" * 64}, oms.Signer(key, chain)))
    with pytest.raises(Denied, match="not for signatures"):
        verify(path, signature, tmp_path / "authority.pem")


@pytest.mark.parametrize(
    ("extended", "signs", "trusted"),
    [
        ((ExtendedKeyUsageOID.CODE_SIGNING,), True, True),
        ((ExtendedKeyUsageOID.CODE_SIGNING,), False, False),
        ((ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH), True, False),
    ],
)
def test_an_authoritys_certificates_for_other_uses_sign_no_models(
    tmp_path: Path, extended: tuple[ObjectIdentifier, ...], signs: bool, trusted: bool
) -> None:
    key = write_signer(tmp_path)
    write_certificates(tmp_path, key, signs=signs, extended=extended)
    chain = tuple(oms._certificates(tmp_path / "signer.chain.pem"))
    signature = write(tmp_path / "model.sig", oms.sign("model", {"a": "0" * 64}, oms.Signer(key, chain)))
    with nullcontext() if trusted else pytest.raises(Denied, match="not for signatures"):
        oms.open_signature(signature, oms.read_trusted(tmp_path / "authority.pem"), NOW)
    with nullcontext() if trusted else pytest.raises(Invalid, match="not one for signatures"):
        oms.read_signer(tmp_path / "signer.pem", tmp_path / "signer.chain.pem")


def test_keys_that_sign_nothing_here_are_refused(tmp_path: Path) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_signer(tmp_path, "odd", ec.SECP256K1())
    (tmp_path / "odd.pem").chmod(0o644)
    for path in (write(tmp_path / "ed", pem), write(tmp_path / "none", b""), tmp_path / "odd.pem", tmp_path / "absent"):
        with pytest.raises(Invalid):
            oms.read_signer(path)
    (tmp_path / "odd.pem").chmod(0o600)
    for read, path in ((oms.read_signer, "odd.pem"), (oms.read_trusted, "odd.pub.pem"), (oms.read_trusted, "absent")):
        with pytest.raises(Invalid):
            read(tmp_path / path)
    write_signer(tmp_path)
    write_certificates(tmp_path, write_signer(tmp_path, "other"))
    with pytest.raises(Invalid):
        oms.read_signer(tmp_path / "signer.pem", tmp_path / "signer.chain.pem")


def _oracle(*arguments: object) -> bool:
    """Return whether the library's command succeeds."""
    command = [str(MODEL_SIGNING / "bin" / "model_signing"), *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, timeout=60).returncode == 0


@deep
@with_oracle
@pytest.mark.parametrize("certified", [False, True])
def test_the_library_verifies_what_we_sign_and_refuses_what_was_changed(tmp_path: Path, certified: bool) -> None:
    path, signature, _ = written(tmp_path, "p256")
    curve = ec.SECP384R1() if certified else ec.SECP256R1()
    write_certificates(tmp_path, write_signer(tmp_path, curve=curve))
    write_certificates_of = tmp_path / "signer.chain.pem" if certified else None
    files = verify(path, signature, tmp_path / "trusted.pem").files
    signature.write_bytes(oms.sign("model", files, oms.read_signer(tmp_path / "signer.pem", write_certificates_of)))
    kind, trusted = ("certificate", "authority.pem") if certified else ("key", "signer.pub.pem")
    option = "--certificate_chain" if certified else "--public_key"

    def accepted(model: Path, by: str = trusted) -> bool:
        return _oracle("verify", kind, model, "--signature", model / "model.sig", option, tmp_path / by)

    assert accepted(path)
    verify(path, signature, tmp_path / trusted)
    write_certificates(tmp_path, write_signer(tmp_path, "other"))
    assert not accepted(path, "authority.pem" if certified else "other.pub.pem")
    for name, change in () if certified else CHANGES.items():
        copy = tmp_path / name
        shutil.copytree(path, copy)
        change(copy)
        assert not accepted(copy), name
        with pytest.raises(Corrupt):
            verify(copy, copy / "model.sig", tmp_path / trusted)


@deep
@with_oracle
def test_a_signature_of_the_library_made_now_is_verified(tmp_path: Path) -> None:
    path, signature, _ = written(tmp_path, "p256")
    write_signer(tmp_path)
    assert _oracle("sign", "key", path, "--signature", signature, "--private_key", tmp_path / "signer.pem")
    assert verify(path, signature, tmp_path / "signer.pub.pem").files.keys() == RECORDED["files"].keys()
