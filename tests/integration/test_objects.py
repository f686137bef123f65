"""Bundles on S3: exactly what was sealed, or refused; whole or not there; and what is said of a store that is ill."""

from __future__ import annotations

import http.server
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import msgspec
import obstore
import pytest

from kit.models import mlp
from kit.waiting import free_port
from mainspring.core.errors import Conflict, Corrupt, Denied, Invalid, NotFound, StorageFull, Unavailable
from mainspring.core.settings import Url
from mainspring.core.time import HOUR, SystemClock
from mainspring.registry.adapters.objects import ObjectBlobs, open_objects
from mainspring.registry.bundles import Bundles, seal
from mainspring.registry.model import Bundle, Manifest, TensorSpec
from mainspring.security.signing import SigningKey

KEY, OTHER = SigningKey(b"k" * 32), SigningKey(b"o" * 32)
A = "a" * 64
NOW = SystemClock().now()
X, Y = TensorSpec("x", "FP32", (-1, 2)), TensorSpec("y", "FP32", (-1, 2))


def sealed(number: int = 0, key: SigningKey = KEY) -> Bundle:
    manifest = Manifest(
        model="late", task="tensors", flavour="onnx", inputs=(), outputs=("y",), tensors=(X,), output_tensors=(Y,),
        run_id="r", dataset_commit="c", features_digest="f", code_version="v", created_at=number,
    )  # fmt: skip
    return seal(manifest, {"model.onnx": mlp(), "golden.json": b"{}", "features.json": b'{"a":1}'}, key)


BUNDLE = sealed()
NAMES = [*BUNDLE.files, "manifest.json", "signature"]


@pytest.fixture
def blobs(s3_blobs: ObjectBlobs) -> ObjectBlobs:
    Bundles(s3_blobs, KEY.public).save(BUNDLE)
    return s3_blobs


def load(blobs: ObjectBlobs, bundle: Bundle = BUNDLE) -> Bundle:
    return Bundles(blobs, KEY.public).load(bundle.digest)


def parts(blobs: ObjectBlobs, digest: str = BUNDLE.digest) -> str:
    marker = blobs._marker(digest)
    assert marker is not None
    return f"parts/{marker.parts}"


def content(blobs: ObjectBlobs, path: str) -> bytes:
    return bytes(obstore.get(blobs._store, path).bytes())


def test_what_was_sealed_is_loaded(blobs: ObjectBlobs) -> None:
    assert load(blobs) == BUNDLE


@pytest.mark.parametrize("name", NAMES)
def test_one_changed_byte_is_noticed(blobs: ObjectBlobs, name: str) -> None:
    path = f"{parts(blobs)}/{name}"
    before = content(blobs, path)
    changed = bytearray(before)
    changed[len(before) // 2] ^= 1
    obstore.put(blobs._store, path, bytes(changed))
    with pytest.raises(Corrupt, match=name.partition(".")[0]):
        load(blobs)
    obstore.put(blobs._store, path, before)
    load(blobs)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_object_is_named(blobs: ObjectBlobs, name: str) -> None:
    obstore.delete(blobs._store, f"{parts(blobs)}/{name}")
    with pytest.raises(Corrupt, match=f"lacks the file {name}"):
        load(blobs)


@pytest.mark.parametrize("name", ["weights.bin", "model.pkl", "a/b", ".hidden"])
def test_an_added_object_is_named(blobs: ObjectBlobs, name: str) -> None:
    obstore.put(blobs._store, f"{parts(blobs)}/{name}", b"x")
    with pytest.raises(Corrupt, match=name):
        load(blobs)


def test_another_bundles_files_are_refused(blobs: ObjectBlobs) -> None:
    """As a link in a folder would: the entry leads to what is whole and signed, and another bundle."""
    other = sealed(1)
    Bundles(blobs, KEY.public).save(other)
    entry = content(blobs, f"whole/{other.digest}")
    obstore.put(blobs._store, f"whole/{BUNDLE.digest}", entry)
    with pytest.raises(Corrupt, match="points to another place"):
        load(blobs)
    for name in NAMES:
        obstore.put(blobs._store, f"{parts(blobs, other.digest)}/{name}", b"")
    with pytest.raises(Corrupt):
        load(blobs, other)


@pytest.mark.parametrize("entry", [b"", b"{}", b'{"parts":"../../etc","files":{}}', b"\xff", b'{"parts":1,"files":{}}'])
def test_an_entry_that_is_none_is_refused(blobs: ObjectBlobs, entry: bytes) -> None:
    obstore.put(blobs._store, f"whole/{BUNDLE.digest}", entry)
    with pytest.raises(Corrupt, match=r"entry|points to another place"):
        load(blobs)


def test_another_keys_signature_and_none_are_refused(blobs: ObjectBlobs) -> None:
    path = f"{parts(blobs)}/signature"
    for signature in (OTHER.sign(content(blobs, f"{parts(blobs)}/manifest.json")), b""):
        obstore.put(blobs._store, path, signature)
        with pytest.raises(Corrupt, match="signature"):
            load(blobs)


def test_what_lost_an_object_is_healed_by_storing_it_again(blobs: ObjectBlobs) -> None:
    obstore.delete(blobs._store, f"{parts(blobs)}/model.onnx")
    Bundles(blobs, KEY.public).save(BUNDLE)
    assert load(blobs) == BUNDLE


def test_strangers_objects_are_no_blobs(blobs: ObjectBlobs) -> None:
    for path in ("whole/readme.txt", "parts/x/y", "other"):
        obstore.put(blobs._store, path, b"x")
    assert blobs.all() == [BUNDLE.digest]
    blobs.sweep(NOW + 24 * HOUR)
    assert content(blobs, "parts/x/y") == b"x"


def test_what_a_dead_writer_left_is_swept_and_the_rest_is_not(blobs: ObjectBlobs) -> None:
    left = f"parts/{A}-{'0' * 26}"
    obstore.put(blobs._store, f"{left}/x", b"half")
    obstore.put(blobs._store, f"condemned/{A}", b"")
    assert blobs.sweep(NOW - HOUR) == 0
    assert content(blobs, f"{left}/x") == b"half"
    assert blobs.sweep(NOW + 24 * HOUR) == 1
    with pytest.raises(FileNotFoundError):
        obstore.head(blobs._store, f"{left}/x")
    blobs.put(A, {"x": b"1"})  # and nobody waits for the removal that died
    assert load(blobs) == BUNDLE


def test_while_a_blob_is_being_removed_its_writer_waits(blobs: ObjectBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mainspring.registry.adapters.objects._WAIT_S", 0.5)
    obstore.put(blobs._store, f"condemned/{BUNDLE.digest}", b"")
    with pytest.raises(Conflict, match="is being removed"):
        Bundles(blobs, KEY.public).save(BUNDLE)


_WRITER = """
import sys
from mainspring.core.settings import Url
from mainspring.registry.adapters.objects import open_objects

blobs = open_objects(Url(sys.argv[1]))
for number in range(1000):
    print("begin", flush=True)
    blobs.put(f"{number:064x}", {f"f{each}": bytes([number % 256]) * 20_000 for each in range(12)})
"""


def test_a_writer_that_is_killed_leaves_blobs_whole_or_not_there(s3_url: Url) -> None:
    blobs = open_objects(s3_url)
    chance = random.Random(5)
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, s3_url.text], stdout=subprocess.PIPE, env=dict(os.environ)
        )
        assert writer.stdout is not None
        for _ in range(chance.randrange(2, 5)):
            writer.stdout.readline()
        time.sleep(chance.uniform(0, 0.05))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        for digest in blobs.all():
            files = blobs.get(digest)
            assert {len(each) for each in files.values()} == {20_000}
            assert len(files) == 12
    blobs.sweep(NOW + 24 * HOUR)
    named = {blobs._marker(digest).parts for digest in blobs.all()}  # type: ignore[union-attr]
    there = {each["path"].split("/")[1] for page in obstore.list(blobs._store, "parts") for each in page}
    assert there == named


# When the store is not well


@pytest.mark.usefixtures("s3_url")
def test_a_bucket_that_is_not_there_is_named(s3_server: str) -> None:
    blobs = open_objects(Url(f"s3://no-such-bucket/x?endpoint={s3_server}&region=us-east-1"))
    for ask in (blobs.all, lambda: blobs.put(A, {"x": b"1"}), lambda: blobs.get(A), lambda: blobs.delete(A)):
        with pytest.raises(NotFound, match="no bucket at s3://no-such-bucket"):
            ask()


@pytest.mark.usefixtures("s3_url")
def test_a_store_that_is_gone_is_unavailable() -> None:
    blobs = open_objects(Url(f"s3://bucket/x?endpoint=http://127.0.0.1:{free_port()}&region=us-east-1"))
    with pytest.raises(Unavailable, match="s3://bucket/x") as refused:
        blobs.get(A)
    assert refused.value.retryable


class _Refusing(http.server.BaseHTTPRequestHandler):
    """A store whose every answer is one error."""

    status, code = 403, "AccessDenied"

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = f"<Error><Code>{self.code}</Code><Message>no</Message></Error>".encode()
        empty = self.code != "AccessDenied" and self.command in ("GET", "HEAD")  # what is full can be read
        status = 404 if empty else self.status
        if status == 404:
            body = b"<Error><Code>NoSuchKey</Code></Error>"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_DELETE = do_POST = _answer

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def refusing(request: pytest.FixtureRequest, s3_url: Url) -> Iterator[ObjectBlobs]:
    status, code = request.param
    handler = type("Refusing", (_Refusing,), {"status": status, "code": code})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        yield open_objects(Url(f"s3://bucket/x?endpoint={endpoint}&region=us-east-1"))
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("refusing", [(403, "AccessDenied")], indirect=True)
def test_a_store_that_refuses_says_so(refusing: ObjectBlobs) -> None:
    with pytest.raises(Denied, match="s3://bucket/x refuses") as refused:
        refusing.get(A)
    assert "AWS_ACCESS_KEY_ID" in str(refused.value.fix)


@pytest.mark.parametrize(
    "refusing", [(507, "InsufficientStorage"), (403, "XMinioAdminBucketQuotaExceeded")], indirect=True
)
def test_a_store_that_is_full_says_so(refusing: ObjectBlobs) -> None:
    with pytest.raises(StorageFull, match="No space left at s3://bucket/x"):
        refusing.put(A, {"x": b"1"})


@pytest.mark.parametrize(
    "address",
    [
        "s3:///prefix",
        "s3://bucket/x?endpoint=http://storage.example.org",
        "s3://bucket/x?secret=abc",
        "gs://bucket/x?endpoint=http://x.example.org",
        "gs://bucket/x?region=x",
    ],
)
def test_an_address_that_cannot_be_meant_is_refused(address: str) -> None:
    with pytest.raises(Invalid) as refused:
        open_objects(Url(address))
    assert "abc" not in str(refused.value)


def test_in_clear_is_for_those_who_say_so() -> None:
    open_objects(Url("s3://bucket/x?endpoint=http://storage.example.org&in_clear=true&region=x"))


def test_the_entry_is_what_the_decision_says(blobs: ObjectBlobs) -> None:
    entry = msgspec.json.decode(content(blobs, f"whole/{BUNDLE.digest}"))
    assert sorted(entry) == ["files", "parts"]
    assert entry["files"] == {name: len(content(blobs, f"{parts(blobs)}/{name}")) for name in NAMES}
