"""Bad input of every kind against a gateway in a process of its own: a 4xx or a closed connection, never a 5xx; and
afterwards the process lives, answers, and holds no more memory than before.
"""

from __future__ import annotations

import copy
import gzip
import json
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from kit.depth import examples
from kit.serving import full_request, keyed_request
from kit.serving_process import TENSORS, ServingProcess, gateway_process
from mainspring.serving.http.routes import ROUTES
from mainspring.serving.protocol.tensor import DTYPES

INFER = "/v2/models/late-arrival/infer"
MOST_BYTES = 1 << 20
MOST_GROWTH_MB = 80  # of bodies in flight, and of what Python keeps of them
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
BOUNDED = settings(
    max_examples=20, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServingProcess]:
    settings = {"models": TENSORS, "max_body_bytes": MOST_BYTES, "body_timeout_s": 1.0, "idle_s": 2.0}
    with gateway_process(tmp_path_factory.mktemp("gateway"), **settings) as each:
        answers(each, times=20)  # what is allocated once is allocated now
        yield each


@pytest.fixture
def gateway(process: ServingProcess) -> Iterator[ServingProcess]:
    before = process.megabytes()
    yield process
    assert process.alive
    answers(process)
    assert process.megabytes() - before < MOST_GROWTH_MB


def answers(gateway: ServingProcess, times: int = 1) -> None:
    """See that a good request is answered, with a connection of its own."""
    for _ in range(times):
        reply = post(gateway, json.dumps(keyed_request("AA")).encode())
        assert reply.status_code == 200, reply.text


def post(gateway: ServingProcess, body: bytes, path: str = INFER, **headers: str) -> httpx.Response:
    sent = {"authorization": gateway.key, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return httpx.post(gateway.url + path, content=body, headers=sent, timeout=30, trust_env=False)


def refused(reply: httpx.Response) -> str:
    """Return what a refusal says; it is one of the caller's, and leaks nothing."""
    assert 400 <= reply.status_code < 500, (reply.status_code, reply.text)
    said = reply.json()["error"]
    assert not any(word in said for word in ("Traceback", "mainspring/", ".py", " at 0x"))
    return said


def spoken(gateway: ServingProcess, *parts: bytes, pause_s: float = 0.0, ends: bool = False) -> bytes:
    """Send bytes over a connection of their own, and return what comes until it is closed or quiet for a while."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=15) as connection:
        try:
            for part in parts:
                connection.sendall(part)
                time.sleep(pause_s)
            if ends:
                connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it was closed on us, which is an answer too
        heard = b""
        try:
            while part := connection.recv(65_536):
                heard += part
                connection.settimeout(0.5)
        except OSError:
            pass
        return heard


def head(
    gateway: ServingProcess, *lines: str, path: str = INFER, method: str = "POST", host: str = "localhost"
) -> bytes:
    fixed = [f"{method} {path} HTTP/1.1", f"Authorization: {gateway.key}"]
    return "\r\n".join([*fixed, *([f"Host: {host}"] if host else []), *lines, "", ""]).encode()


def statuses(heard: bytes) -> list[int]:
    """Return the status of each reply on a connection."""
    return [int(part[:3]) for part in heard.split(b"HTTP/1.1 ")[1:]] + [
        int(part[:3]) for part in heard.split(b"HTTP/1.0 ")[1:]
    ]


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
def test_by_our_own_openapi(gateway: ServingProcess, mode: schemathesis.GenerationMode) -> None:
    document = httpx.get(f"{gateway.url}/v2/openapi.json", headers={"authorization": gateway.key}, trust_env=False)
    loaded = schemathesis.openapi.from_dict(document.json())
    seen: set[int] = set()
    for found in loaded.get_all_operations():
        operation = found.ok()
        if mode is schemathesis.GenerationMode.NEGATIVE and operation.method.upper() == "GET":
            continue  # they take nothing that could be wrong

        @seed(4)
        @settings(BOUNDED, max_examples=examples(gate=4, deep=12) if operation.method.upper() == "POST" else 2)
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: schemathesis.Case) -> None:
            reply = case.call(base_url=gateway.url, headers={"authorization": gateway.key}, timeout=30)
            seen.add(reply.status_code)
            case.validate_response(reply, checks=CHECKS)

        ask()
    assert 400 in seen
    if mode is schemathesis.GenerationMode.POSITIVE:
        assert 200 in seen


JUNK = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.lists(st.integers(), max_size=3)
    | st.dictionaries(st.text(max_size=5), st.integers(), max_size=2)
    | st.sampled_from(["FP32", "BYTES", "FP7", [], [[]], [[1], 2], {}, -1, 2**63, 1e308, "\x00", "\ud800"])
)


@st.composite
def changed(draw: st.DrawFn) -> Any:
    """A valid request in which some places hold something else, or are missing."""
    request: Any = copy.deepcopy(draw(st.sampled_from([full_request(), keyed_request("AA", None)])))
    request |= {"id": "x", "parameters": {"timeout": 10_000_000, "priority": 1}, "outputs": [{"name": "probability"}]}
    for _ in range(draw(st.integers(1, 3))):
        place: Any = request
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            inner = place[key]
            if isinstance(inner, (dict, list)) and inner and draw(st.booleans()):
                place = inner
                continue
            if draw(st.booleans()):
                del place[key]
            else:
                place[key] = draw(JUNK)
            break
    return request


def test_valid_requests_with_something_wrong_in_them(gateway: ServingProcess) -> None:
    with httpx.Client(
        base_url=gateway.url, headers={"authorization": gateway.key}, timeout=30, trust_env=False
    ) as http:

        @seed(4)
        @settings(BOUNDED, max_examples=examples(gate=80, deep=300))
        @given(request=changed())
        def ask(request: Any) -> None:
            reply = http.post(INFER, content=json.dumps(request).encode())
            if reply.status_code != 200:
                refused(reply)

        ask()


def binary_request() -> tuple[str, bytes, bytes]:
    """Return the path, the JSON and the bytes of a valid request in the binary extension."""
    letters = {"INT64": "q", "FP32": "f", "FP64": "d"}
    inputs, content = [], b""
    for each in full_request()["inputs"]:
        part = struct.pack(f"<2{letters[each['datatype']]}", *(value or 0 for value in each["data"]))
        fixed = {name: value for name, value in each.items() if name != "data"}
        inputs.append({**fixed, "parameters": {"binary_data_size": len(part)}})
        content += part
    return INFER, json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode(), content


def echo_request() -> tuple[str, bytes, bytes]:
    """Return the same of a model of tensors with an input of each datatype."""
    inputs, content = [], b""
    for datatype in DTYPES:
        array = np.ones((2, 2), np.float32 if datatype == "BYTES" else DTYPES[datatype])
        part = (struct.pack("<I", 2) + b"ab") * 4 if datatype == "BYTES" else array.tobytes()
        size = {"binary_data_size": len(part)}
        inputs.append({"name": f"in_{datatype.lower()}", "datatype": datatype, "shape": [2, 2], "parameters": size})
        content += part
    said = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    return "/v2/models/echo/infer", said, content


@pytest.mark.parametrize("made", [binary_request, echo_request], ids=["features", "tensors"])
def test_binary_requests_with_something_wrong_in_them(
    gateway: ServingProcess, made: Callable[[], tuple[str, bytes, bytes]]
) -> None:
    path, said, content = made()
    whole = said + content
    assert post(gateway, whole, path, inference_header_content_length=str(len(said))).status_code == 200
    with httpx.Client(
        base_url=gateway.url, headers={"authorization": gateway.key}, timeout=30, trust_env=False
    ) as http:

        @seed(4)
        @settings(BOUNDED, max_examples=examples(gate=80, deep=300))
        @given(data=st.data())
        def ask(data: st.DataObject) -> None:
            body = bytearray(whole)
            for _ in range(data.draw(st.integers(0, 3))):
                body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
            end = data.draw(st.just(len(body)) | st.integers(0, len(body)))
            lengths = st.just(str(len(said))) | st.integers(-2, len(body) + 2).map(str)
            length = data.draw(lengths | st.sampled_from(["", "x", "1e3", "9" * 30, "+5", "0x10", "５"]))
            headers = [(b"Inference-Header-Content-Length", length.encode())]
            reply = http.post(path, content=bytes(body[:end]), headers=headers)
            if reply.status_code != 200:
                refused(reply)

        ask()


def bomb(encoding: str, megabytes: int) -> bytes:
    window = {"gzip": 31, "deflate": 15}[encoding]
    packer = zlib.compressobj(9, zlib.DEFLATED, window)
    block = b" " * 1_000_000
    return b"".join([*(packer.compress(block) for _ in range(megabytes)), packer.flush()])


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_bombs(gateway: ServingProcess, encoding: str) -> None:
    body = bomb(encoding, 200)
    assert len(body) < MOST_BYTES
    for _ in range(5):
        reply = post(gateway, body, content_encoding=encoding)
        assert reply.status_code == 413
        refused(reply)


def test_compressed_bodies_that_are_not_whole_or_not_what_they_say(gateway: ServingProcess) -> None:
    good = json.dumps(full_request()).encode()
    packed = gzip.compress(good)
    assert post(gateway, packed, content_encoding="gzip").status_code == 200
    for body, encoding, status in [
        (packed[:-1], "gzip", 400),
        (packed[:10], "gzip", 400),
        (packed + b"x", "gzip", 400),
        (packed + packed, "gzip", 400),
        (b"", "gzip", 400),
        (good, "gzip", 400),
        (good, "deflate", 400),
        (gzip.compress(packed), "gzip", 400),  # twice
        (packed, "gzip, gzip", 415),
        (good, "br", 415),
    ]:
        reply = post(gateway, body, content_encoding=encoding)
        assert reply.status_code == status, (encoding, len(body), reply.text)
        refused(reply)


def test_huge_bodies(gateway: ServingProcess) -> None:
    assert post(gateway, b" " * (MOST_BYTES + 1)).status_code == 413
    heard = spoken(gateway, head(gateway, f"Content-Length: {10**12}"), b"x" * 5_000_000)
    assert statuses(heard)[:1] in ([413], [])
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    heard = spoken(gateway, head(gateway, "Transfer-Encoding: chunked"), *[chunk] * 64)
    assert statuses(heard)[:1] in ([413], [])
    deep = b'{"inputs": ' + b"[" * 500_000
    for body in (
        deep,
        b"[" * 1_000_000,
        b'{"a":' * 150_000,
        b'{"inputs": [{"name": "' + b"\\u0000" * 100_000 + b'"}]}',
    ):
        refused(post(gateway, body))
    many = full_request()["inputs"][0] | {"shape": [200_000], "data": [1] * 200_000}
    assert "1024" in refused(post(gateway, json.dumps({"inputs": [many]}).encode()))
    wide = [{"name": f"n{number}", "shape": [1], "datatype": "FP32", "data": [1]} for number in range(15_000)]
    refused(post(gateway, json.dumps({"inputs": wide}).encode()))


def test_slow_bodies(gateway: ServingProcess) -> None:
    """Two hundred at once, each with a body that never ends. Others are answered meanwhile."""
    opening = head(gateway, "Content-Length: 1000")
    connections = [socket.create_connection(("127.0.0.1", gateway.port), timeout=30) for _ in range(200)]
    try:
        for each in connections:
            each.sendall(opening + b"{")
        answers(gateway)
        for each in connections:
            assert statuses(each.recv(4096)) == [408]
    finally:
        for each in connections:
            each.close()


def test_bodies_cut_off(gateway: ServingProcess) -> None:
    body = json.dumps(full_request()).encode()
    for heard in (
        spoken(gateway, head(gateway, f"Content-Length: {len(body)}"), body[:-1], ends=True),
        spoken(gateway, head(gateway, "Transfer-Encoding: chunked"), b"10\r\n" + body[:5], ends=True),
        spoken(gateway, head(gateway, "Transfer-Encoding: chunked"), b"zz\r\n", ends=True),
        spoken(gateway, head(gateway, "Transfer-Encoding: chunked"), b"-5\r\n", ends=True),
        spoken(gateway, head(gateway, "Transfer-Encoding: chunked"), b"ffffffffffffffffff\r\n", ends=True),
        spoken(gateway, head(gateway, "Content-Length: 5")[:-2], ends=True),
    ):
        assert all(400 <= status < 500 for status in statuses(heard)), heard


def test_framing_that_two_servers_could_read_differently(gateway: ServingProcess) -> None:
    """Smuggling: a second request in what may be the first one's body. It must never be answered."""
    good = json.dumps(full_request()).encode()
    hidden = head(gateway, path="/v2", method="GET")
    empty, whole = b"0\r\n\r\n", b"%x\r\n%b\r\n0\r\n\r\n" % (len(good), good)
    for method, path, body in [
        ("POST", INFER, whole),
        ("POST", INFER, empty),
        ("GET", "/v2/models/late-arrival", empty),
        ("POST", "/v2/nothing", empty),
    ]:
        both = (f"Content-Length: {len(body + hidden)}", "Transfer-Encoding: chunked")
        for lines in (both, both[::-1]):
            heard = spoken(gateway, head(gateway, *lines, method=method, path=path) + body + hidden)
            assert statuses(heard) == [400], (method, path, heard)
    for lines, body in {
        ("Content-Length: 0", f"Content-Length: {len(hidden)}"): b"",
        (f"Content-Length: {len(hidden)}", "Content-Length: 0"): b"",
        ("Content-Length: 0, 5",): b"",
        (f"Content-Length: +{len(hidden)}",): b"",
        ("Content-Length: 0x10",): b"",
        ("Content-Length: -1",): b"",
        ("Transfer-Encoding: chunked", "Transfer-Encoding: identity"): empty,
        ("Transfer-Encoding: xchunked",): empty,
        ("Transfer-Encoding: identity, chunked, identity",): empty,
        ("Transfer-Encoding : chunked",): empty,
        ("Content-Length : 0",): b"",
        ("X: y\r\n Content-Length: 0",): b"",
        ("X\x00: y", "Content-Length: 0"): b"",
        ("Content-Length:\x0b0",): b"",
    }.items():
        for method, path in (("POST", INFER), ("GET", "/v2/models/late-arrival")):
            found = statuses(spoken(gateway, head(gateway, *lines, method=method, path=path) + body + hidden))
            assert all(400 <= status < 500 for status in found), (lines, method, path, found)


def test_hosts(gateway: ServingProcess) -> None:
    live = "/v2/health/live"
    for lines, host, status in [
        ((), "", 400),
        ((), "evil.example", 403),
        (("Host: evil.example",), "localhost", 400),
        (("Host: localhost",), "evil.example", 400),
        ((), "localhost@evil.example", 403),
        ((), "localhost/evil", 403),
        ((), "local host", 403),
        ((), "localhost:99999999", 403),
    ]:
        found = statuses(spoken(gateway, head(gateway, *lines, path=live, method="GET", host=host)))
        assert found, (lines, host)
        assert found[0] in (status, 400), (lines, host, found)
    asked = f"GET http://evil.example{live} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    assert all(status in (200, 400, 403) for status in statuses(spoken(gateway, asked)))
    assert statuses(spoken(gateway, f"GET {live} HTTP/1.0\r\n\r\n".encode()))[0] == 400


def test_requests_that_are_none(gateway: ServingProcess) -> None:
    line = f"GET /v2 HTTP/1.1\r\nHost: localhost\r\nAuthorization: {gateway.key}\r\n"
    for sent in (
        b"\x00" * 100,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100,  # TLS to a port without it
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /v2 HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"G" * 100_000,
        b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        line.encode() + b"X: " + b"y" * 1_000_000 + b"\r\n\r\n",
        line.encode() + b"".join(b"X-%d: y\r\n" % number for number in range(5000)) + b"\r\n",
        line.replace("/v2", "/v2/models/%00%ff%2e%2e").encode() + b"\r\n",
        line.replace("/v2 ", "/v2?\xff=1 ").encode("latin-1") + b"\r\n",
        line.replace("Authorization: ", "Authorization: \xff\xfe").encode("latin-1") + b"\r\n",
        line.replace("GET", "GET\tGET").encode() + b"\r\n",
    ):
        found = statuses(spoken(gateway, sent, ends=True))
        assert all(status == 200 or 400 <= status < 500 for status in found), (sent[:60], found)


def test_unknown_paths_models_and_methods(gateway: ServingProcess) -> None:
    names = ["nobody", "..", "%2e%2e", "a%2Fb", "%00", "%F0%9F%92%A9", "late-arrival%20", "LATE-ARRIVAL", "x" * 5000]
    for name in names:
        for path in (f"/v2/models/{name}", f"/v2/models/{name}/ready", f"/v2/models/late-arrival/versions/{name}"):
            heard = spoken(gateway, head(gateway, "Connection: close", path=path, method="GET"))
            assert statuses(heard) in ([403], [404]), (path, heard)
            assert b"x" * 200 not in heard
        lines = ("Connection: close", "Content-Length: 2")
        heard = spoken(gateway, head(gateway, *lines, path=f"/v2/models/{name}/infer") + b"{}")
        assert statuses(heard) in ([403], [404]), (name, heard)
    with httpx.Client(
        base_url=gateway.url, headers={"authorization": gateway.key}, timeout=30, trust_env=False
    ) as http:
        for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"):
            for path in (INFER, "/v2", "/v2/health/live", "/v2/nothing"):
                reply = http.request(method, path)
                assert reply.status_code in (400, 404, 405, 501), (method, path, reply.status_code)
        assert http.head("/v2/health/live").status_code in (200, 405)
        assert statuses(spoken(gateway, head(gateway, path="evil.example:443", method="CONNECT")))[:1] in (
            [400],
            [403],
            [404],
            [405],
            [],
        )


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"x": 1}', b"\xff" * 50], ids=repr)
def test_what_tritons_clients_may_ask_takes_no_junk_either(gateway: ServingProcess, body: bytes) -> None:
    names = {"model": "late-arrival", "version": "1", "region": "r"}
    for route in ROUTES:
        if route.method == "POST" and not route.path.endswith("/infer"):
            reply = post(gateway, body, route.path.format(**names))
            assert reply.status_code < 500, (route.path, reply.text)
            assert post(gateway, b" " * (MOST_BYTES + 1), route.path.format(**names)).status_code == 413


def test_heads_that_never_end(gateway: ServingProcess) -> None:
    def dribble(connection: socket.socket) -> None:
        connection.sendall(b"GET /v2 HTTP/1.1\r\n")
        for _ in range(300):  # a header every tenth of a second, for longer than the limit
            connection.sendall(b"X: y\r\n")
            time.sleep(0.1)

    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as each, pytest.raises(ConnectionError):
        dribble(each)


def test_connections_that_say_nothing(gateway: ServingProcess) -> None:
    silent = [socket.create_connection(("127.0.0.1", gateway.port), timeout=30) for _ in range(200)]
    try:
        answers(gateway, times=3)
    finally:
        for each in silent:
            each.close()
