"""Whatever a parser of foreign content is given, it reads it or refuses it with an error of ours, in bounded memory."""

from __future__ import annotations

import copy
import hashlib
import json
import tracemalloc
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.auditing import KEY as AUDIT_KEY
from kit.auditing import audit_log, event
from kit.depth import examples
from kit.edge_packages import package
from kit.model_signers import MADE, write_certificates, write_signer
from kit.models import mlp
from kit.serving import bundle
from mainspring.core.errors import MainspringError
from mainspring.core.time import DAY, from_datetime
from mainspring.deploy.fleet.envelopes import read_report
from mainspring.deploy.fleet.records import read_delivery
from mainspring.features import definitions
from mainspring.governance.counterfactual import read_target
from mainspring.operations.models.adding import read_golden
from mainspring.operations.models.composing import read_plan as read_graph
from mainspring.operations.models.tensor_specs import parse_spec
from mainspring.operations.pipelines.outside import read_scope
from mainspring.registry import oms
from mainspring.registry.bundles import FEATURES, MANIFEST, SIGNATURE, encode_manifest, open_blob, seal
from mainspring.registry.model import Bundle
from mainspring.registry.onnx_file import check_onnx
from mainspring.registry.onnx_head import read_head as read_onnx_head
from mainspring.registry.transfer import Export, read_export, write_export
from mainspring.security.audit_proofs import export, verify_export
from mainspring.security.erasures import read_named
from mainspring.security.model import AuditFilter
from mainspring.security.policy import Policies
from mainspring.security.signing import SigningKey
from mainspring.security.tree_heads import open_head, read_head
from mainspring_edge.errors import EdgeError
from mainspring_edge.link import read_desired
from mainspring_edge.package import open_package

KEY = SigningKey(b"k" * 32)
MOST_BYTES = 96 << 20
BOUNDED = settings(
    max_examples=examples(gate=15, deep=1000), deadline=None, database=None, suppress_health_check=list(HealthCheck)
)

pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True)
class Parser:
    """What reads foreign content, and content that it reads."""

    read: Callable[[bytes], object]
    good: Callable[[], bytes]
    is_json: bool = True


@cache
def sealed() -> Bundle:
    made = bundle(0.0)
    return seal(made.manifest, made.files, KEY)


def manifest(content: bytes) -> object:
    """Open a bundle whose manifest this installation signed, whatever it is."""
    blob = {**sealed().files, MANIFEST: content, SIGNATURE: KEY.sign(content)}
    return open_blob(hashlib.sha256(content).hexdigest(), blob, KEY.public)


def in_file(read: Callable[[Path], object]) -> Callable[[bytes], object]:
    def from_file(content: bytes) -> object:
        with TemporaryDirectory() as folder:
            path = Path(folder, "given")
            path.write_bytes(content)
            return read(path)

    return from_file


def exported() -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder, "made")
        index = Export(
            key=KEY.public.hex(), model=sealed().manifest.model, version="1", digest=sealed().digest,
            bundles=(sealed().digest,), created_at=5, authors=("local:ana",), tags={}, run=None,
        )  # fmt: skip
        with path.open("wb") as file:
            write_export(file, index, [sealed()], KEY)
        return path.read_bytes()


@cache
def audited() -> bytes:
    log = audit_log()
    log.append([event(number) for number in range(5)])
    return "\n".join(export(log, AUDIT_KEY.public, AuditFilter(), subjects=True)).encode()


def note() -> bytes:
    return json.loads(audited().splitlines()[0])["head"].encode()


def edge_index(content: bytes) -> object:
    """Open a package whose index the project signed, whatever it is."""
    with TemporaryDirectory() as folder:
        made = package(Path(folder, "made"), 1)
        (made / "edge.json").write_bytes(content)
        (made / "edge.sig").write_bytes(KEY.sign(content))
        return open_package(made, KEY.public)


def edge_good() -> bytes:
    with TemporaryDirectory() as folder:
        return (package(Path(folder, "made"), 1) / "edge.json").read_bytes()


def enveloped(body: bytes) -> bytes:
    text = body.decode(errors="replace")
    return json.dumps({"body": text, "signature": KEY.sign(text.encode()).hex()}).encode()


def desired(content: bytes) -> object:
    return read_desired(content, trusted_key=KEY.public, project="late", device="d1", package="late-arrival")


WANTED = {
    "kind": "desired", "project": "late", "device": "d1", "package": "late-arrival", "version": 3, "revision": 2,
    "at": 5,
}  # fmt: skip
REPORT = {
    "project": "late", "device": "d1", "package": "p", "version": 3, "state": "running", "revision": 1, "sequence": 4,
    "boot": "b", "at": 5, "mono_us": 6, "failed": {"2": "x"}, "problem": "", "rows": 3, "errors": 0, "p99_us": 9,
}  # fmt: skip
RECORD = {
    "kind": "prediction", "id": "0" * 32, "version": 3, "boot": "b", "mono_us": 1, "at": 2, "row": {"x": 1.0},
    "features": {"x": 1.0},     "outputs": {"y": 0.5}, "latency_us": 7, "share": 1.0,
}  # fmt: skip
DELIVERY = {
    "project": "late",
    "device": "d1",
    "queue": "q",
    "boot": "b",
    "mono_us": 5,
    "at": 6,
    "records": [[1, RECORD]],
}
GRAPH = {"nodes": [{"name": "a", "model": "m@1", "inputs": {"x": "x"}, "weights": [0.5]}], "outputs": {"y": "a.y"}}
GOLDEN = {"inputs": {"x": [[1.0, 2.0], [3.0, 4.0]]}, "outputs": {"y": [[1.0], [2.0]]}}
POLICY = b"""@id("rows")
forbid (principal, action == Action::"table.rows", resource == Table::"orders")
unless { principal in Group::"risk" };
"""


@cache
def signer() -> tuple[oms.Signer, oms.Trusted]:
    """Return a signer with certificates, and who trusts both its key and its authority."""
    with TemporaryDirectory() as folder:
        place = Path(folder)
        write_certificates(place, write_signer(place))
        made = oms.read_signer(place / "signer.pem", place / "signer.chain.pem")
        keys, authorities = oms.read_trusted(place / "signer.pub.pem"), oms.read_trusted(place / "authority.pem")
        return made, oms.Trusted(keys.keys, authorities.authorities)


@in_file
def signature(path: Path) -> object:
    return oms.open_signature(path, signer()[1], from_datetime(MADE) + DAY)


def signed_model(by: oms.Signer) -> bytes:
    return oms.sign("model", {"model.onnx": "0" * 64, "golden.json": "1" * 64}, by)


def certified(certificate: bytes) -> object:
    """Open a signature with a certificate that may be anything."""
    made = json.loads(signed_model(signer()[0]))
    made["verificationMaterial"]["x509CertificateChain"]["certificates"][0]["rawBytes"] = b64encode(
        certificate
    ).decode()
    return signature(json.dumps(made).encode())


def stated(payload: bytes) -> object:
    """Open the signature of whatever a trusted key has signed."""
    key = signer()[0].key
    made = json.loads(signed_model(oms.Signer(key)))
    envelope = made["dsseEnvelope"]
    envelope["payload"] = b64encode(payload).decode()
    envelope["signatures"][0]["sig"] = b64encode(key.sign(oms.encoded(payload), ECDSA(SHA256()))).decode()
    return signature(json.dumps(made).encode())


def statement() -> bytes:
    return b64decode(json.loads(signed_model(signer()[0]))["dsseEnvelope"]["payload"])


def plain(value: Any) -> Callable[[], bytes]:
    return lambda: json.dumps(value).encode()


def texts(read: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda content: read(content.decode(errors="replace"))


PARSERS = {
    "manifest": Parser(manifest, lambda: encode_manifest(sealed().manifest)),
    "features of a bundle": Parser(definitions.load, lambda: sealed().files[FEATURES]),
    "export of a version": Parser(in_file(lambda path: read_export(path, {"k": KEY.public})), exported, is_json=False),
    "onnx": Parser(check_onnx, mlp, is_json=False),
    "head of an onnx file": Parser(read_onnx_head, mlp, is_json=False),
    "head of the audit log": Parser(texts(read_head), note, is_json=False),
    "signed head": Parser(texts(lambda text: open_head(text, AUDIT_KEY.public)), note, is_json=False),
    "export of the audit log": Parser(
        lambda content: verify_export(content.splitlines(keepends=True), AUDIT_KEY.public), audited, is_json=False
    ),
    "a line of that export": Parser(
        lambda content: verify_export([*audited().splitlines(keepends=True)[:1], content], AUDIT_KEY.public),
        lambda: audited().splitlines()[2],
    ),
    "erased events": Parser(texts(read_named), lambda: b"0 2-5 9", is_json=False),
    "index of an edge package": Parser(edge_index, edge_good),
    "desired state": Parser(desired, lambda: enveloped(plain(WANTED)())),
    "signed desired state": Parser(lambda content: desired(enveloped(content)), plain(WANTED)),
    "report of a device": Parser(lambda content: read_report(content, KEY.public), lambda: enveloped(plain(REPORT)())),
    "signed report": Parser(lambda content: read_report(enveloped(content), KEY.public), plain(REPORT)),
    "delivery of a device": Parser(read_delivery, plain(DELIVERY)),
    "policy": Parser(texts(lambda text: Policies({"own.cedar": text})), lambda: POLICY, is_json=False),
    "graph of models": Parser(in_file(read_graph), plain(GRAPH)),
    "golden rows": Parser(in_file(read_golden), plain(GOLDEN)),
    "scope of a step": Parser(read_scope, plain({"parameters": {"day": "x"}, "outcomes": {"a": {"value": 1}}})),
    "tensor": Parser(texts(parse_spec), lambda: b"x:FP32:-1,4", is_json=False),
    "signature of a model": Parser(signature, lambda: signed_model(oms.Signer(signer()[0].key))),
    "signature by a certificate": Parser(signature, lambda: signed_model(signer()[0])),
    "certificate of a signature": Parser(
        certified, lambda: signer()[0].certificates[0].public_bytes(Encoding.DER), is_json=False
    ),
    "statement of a signature": Parser(stated, statement),
    "wanted answer": Parser(
        texts(lambda text: read_target(text, ("probability",))), lambda: b"probability < 0.3", is_json=False
    ),
}  # fmt: skip


PIECES = st.sampled_from(
    [
        *(b"[", b"{", b"}", b"]", b'"', b",", b":", b"-", b"null", b"true", b"NaN", b"1e999", b"-0", b"\\ud800"),
        *(
            b"\x00",
            b"\xff",
            b"\x80\x80\x80\x80\x08",
            b"\n",
            b"=",
            b"%",
            b"9" * 400,
            b"18446744073709551616",
            b"[" * 2000,
        ),
    ]
) | st.binary(max_size=8)
JUNK = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=12)
    | st.lists(st.integers(), max_size=3)
    | st.dictionaries(st.text(max_size=4), st.integers(), max_size=2)
    | st.sampled_from(["../x", "\x00", "\ud800", 1e308, 2**63, -1, "9" * 5000, [[[[]]]]])
)


def damaged(data: st.DataObject, content: bytes) -> bytes:
    """Return content in which some bytes were changed, cut, repeated or put in."""
    made = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(made)))
        end = min(len(made), place + data.draw(st.integers(0, 40)))
        match data.draw(st.sampled_from(["put", "cut", "repeat", "set", "end"])):
            case "put":
                made[place:place] = data.draw(PIECES)
            case "cut":
                del made[place:end]
            case "repeat":
                made[place:place] = made[place:end] * data.draw(st.integers(1, 3))
            case "set":
                made[place:end] = data.draw(PIECES)
            case "end":
                del made[place:]
    return bytes(made)


def replaced(data: st.DataObject, content: bytes) -> bytes:
    """Return a JSON document in which some values are others, or are gone."""
    document = json.loads(content)
    for _ in range(data.draw(st.integers(1, 3))):
        places = list(_places(document))
        if not places:
            break
        holder, key = data.draw(st.sampled_from(places))
        if data.draw(st.integers(0, 3)):
            holder[key] = copy.deepcopy(data.draw(JUNK))
        else:
            del holder[key]
    return json.dumps(document).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield value, key
        yield from _places(each)


def refused_or_read(parser: Parser, content: bytes) -> None:
    with suppress(MainspringError, EdgeError):
        parser.read(content)


@pytest.mark.parametrize("name", PARSERS)
def test_good_content_is_read(name: str) -> None:
    PARSERS[name].read(PARSERS[name].good())


@pytest.mark.parametrize("name", PARSERS)
def test_damaged_content_is_read_or_refused(name: str) -> None:
    parser = PARSERS[name]
    good = parser.good()

    @BOUNDED
    @given(st.data())
    def ask(data: st.DataObject) -> None:
        refused_or_read(parser, damaged(data, good))
        if parser.is_json:
            refused_or_read(parser, replaced(data, good))

    ask()


BOMBS: dict[str, bytes] = {
    "nothing": b"",
    "lists": b"[" * 60_000,
    "objects": b'{"a":' * 12_000,
    "whole lists": b"[" * 30_000 + b"]" * 30_000,
    "a long number": b"9" * 60_000,
    "a long text": b'"' + b"\\u0000" * 10_000 + b'"',
    "groups": b"\x0b" * 60_000,
    "a length beyond the end": b"\x0a\xff\xff\xff\xff\x07",
    "a length without end": b"\x0a" + b"\xff" * 60_000,
    "lines": b"\n" * 60_000,
    "blanks": b" " * 60_000,
    "brackets of a policy": b'@id("a") permit (principal, action, resource) when { ' + b"(" * 20_000,
}


@pytest.mark.parametrize("name", PARSERS)
def test_bombs_are_refused_in_bounded_memory(name: str) -> None:
    parser = PARSERS[name]
    good = parser.good()
    bombs = list(BOMBS.values())
    if parser.is_json:  # in a place where something is expected, and in one where nothing is
        key = next(iter(json.loads(good)))
        for deep in (b"[" * 30_000 + b"]" * 30_000, b'{"a":' * 10_000 + b"1" + b"}" * 10_000):
            bombs += [b'{"%s": %s}' % (key.encode(), deep), good.rstrip()[:-1] + b', "more": ' + deep + b"}"]
    tracemalloc.start()
    try:
        for bomb in bombs:
            refused_or_read(parser, bomb)
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()
