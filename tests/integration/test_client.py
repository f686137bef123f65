"""The Python client, blocking and not, against a real gateway, and against servers that misbehave."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest

from kit.awaited import Awaited
from kit.serving import FEATURES, expected
from kit.serving_process import TENSORS, ServingProcess, gateway_process
from kit.waiting import free_port
from mainspring.client import (
    Client,
    DeadlineExceeded,
    Denied,
    Invalid,
    MainspringError,
    NotFound,
    Overloaded,
    Retries,
    Unavailable,
)

KEYED = {"carrier": "AA", "flight_id": 1, "distance": 500.0, "scheduled_at": "2013-07-01T02:00:00Z"}
FULL = [{name: values[row] for name, (_, values) in FEATURES.items()} for row in range(2)]
ANSWERS = expected({name: values for name, (_, values) in FEATURES.items()})
DTYPES = {"INT64": np.int64, "FP32": np.float32, "FP64": np.float64}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServingProcess]:
    with gateway_process(tmp_path_factory.mktemp("gateway"), models=TENSORS) as each:
        yield each


@pytest.fixture(params=[Client, Awaited], ids=["blocking", "asynchronous"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def client(kind: Any, gateway: ServingProcess) -> Iterator[Any]:
    with kind(gateway.url, gateway.key.removeprefix("Bearer "), timeout_s=30.0) as each:
        yield each


def test_by_features(client: Any) -> None:
    found = client.predict("late-arrival", FULL)
    assert found.values == pytest.approx(ANSWERS, abs=1e-6)
    assert [each.value for each in found] == found.values
    assert (found.version, len(set(found.ids)), found.statuses) == ("1", 2, {})
    assert client.predict("late-arrival", FULL[0], outputs=["probability"])[0].values.keys() == {"probability"}


def test_by_key_with_statuses(client: Any) -> None:
    found = client.predict("late-arrival", [KEYED, {**KEYED, "carrier": None}], statuses=True)
    assert set(found[0].statuses) == {"Carrier.flights_1h", "Carrier.delay_1h"}
    assert set(found[1].statuses.values()) == {"MISSING"}
    assert found.values[0] == pytest.approx(found.values[1])


def test_arrays(client: Any) -> None:
    inputs = {
        name: np.array([0 if value is None else value for value in values], DTYPES[datatype])
        for name, (datatype, values) in FEATURES.items()
    }
    found = client.infer("late-arrival", inputs, id="mine", timeout_s=30.0, priority=1)
    assert found.outputs["probability"] == pytest.approx(ANSWERS, abs=1e-6)
    assert (found.outputs["probability"].dtype, found.id, found.version) == (np.float32, "mine", "1")


ECHOED = [
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "FP32",
    "FP64",
    "BYTES",
]
NUMPY = {"BOOL": "?", "FP16": "f2", "FP32": "f4", "FP64": "f8"}


def test_arrays_of_every_datatype_come_back(client: Any) -> None:
    assert "binary_tensor_data" in client.server().extensions
    random = np.random.default_rng(4)
    inputs = {}
    for datatype in ECHOED:
        name = f"in_{datatype.lower()}"
        if datatype == "BYTES":
            inputs[name] = np.array([["a", ""], ["é\u4e2d", "x" * 300]], object)
        elif datatype in NUMPY:
            inputs[name] = random.normal(size=(2, 2)).astype(NUMPY[datatype])
        else:
            dtype = np.dtype(datatype.lower())
            least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
            inputs[name] = np.array([[least, most], [0, 1]], dtype)
    found = client.infer("echo", inputs)
    assert set(found.outputs) == {f"out_{datatype.lower()}" for datatype in ECHOED}
    for name, sent in inputs.items():
        back = found.outputs[name.replace("in_", "out_")]
        if name == "in_bytes":
            assert [[each.decode() for each in row] for row in back.tolist()] == sent.tolist()
        else:
            assert back.dtype == sent.dtype
            assert (back == sent).all()


def test_arrays_that_the_model_does_not_take(client: Any) -> None:
    assert client.infer("sums", {"x": np.ones((3, 4), np.float32)}).outputs["sum"].tolist() == [[4.0]] * 3
    assert client.infer("ragged", {"x": np.ones((2, 7), np.float32)}, outputs=["sum"]).outputs.keys() == {"sum"}
    for wrong, words in [
        ({"x": np.ones((3, 5), np.float32)}, "shape"),
        ({"x": np.ones((3, 4))}, "FP32"),
        ({"y": np.ones((3, 4), np.float32)}, "'y'"),
        ({}, "missing"),
    ]:
        with pytest.raises(Invalid) as caught:
            client.infer("sums", wrong)
        assert words in str(caught.value)


def test_what_an_endpoint_takes(client: Any) -> None:
    model = client.metadata("late-arrival")
    assert [each.name for each in model.inputs] == list(FEATURES)
    assert {each.name for each in model.keyed} >= KEYED.keys()
    assert (model.optional, model.versions, model.outputs[0].datatype) == ({"tail"}, ("1",), "FP32")
    assert client.metadata("late-arrival", version="1") == model
    assert client.server().name == "mainspring"
    assert client.ready()
    assert client.ready("late-arrival")


@pytest.mark.parametrize(
    ("call", "kind_of_error", "words"),
    [
        (lambda client: client.predict("nobody", KEYED), NotFound, "'nobody'"),
        (lambda client: client.predict("late-arrival", KEYED, version="9"), NotFound, "'9'"),
        (lambda client: client.ready("nobody"), NotFound, "'nobody'"),
        (lambda client: client.predict("late-arrival", {**KEYED, "carrier": 1}), Invalid, "'carrier'"),
        (lambda client: client.predict("late-arrival", {"carrier": "AA"}), Invalid, "missing"),
        (lambda client: client.predict("late-arrival", {"carier": "AA"}), Invalid, "did you mean 'carrier'"),
        (lambda client: client.predict("late-arrival", KEYED, outputs=["logit"]), Invalid, "the outputs are"),
    ],
)
def test_errors_are_the_servers(client: Any, call: Any, kind_of_error: type[MainspringError], words: str) -> None:
    with pytest.raises(kind_of_error) as caught:
        call(client)
    assert words in str(caught.value)


def test_a_wrong_key_is_denied(kind: Any, gateway: ServingProcess) -> None:
    with kind(gateway.url, "msp_wrong") as client, pytest.raises(Denied) as caught:
        client.predict("late-arrival", KEYED)
    assert not caught.value.authenticated
    assert caught.value.fix


def test_nobody_there(kind: Any) -> None:
    retries = Retries(most=2, first_s=0.001)
    with kind(f"http://127.0.0.1:{free_port()}", retries=retries) as client:
        assert not client.ready()
        with pytest.raises(Unavailable, match="could not be reached"):
            client.predict("late-arrival", KEYED)


def test_an_address_of_another_kind() -> None:
    with pytest.raises(Invalid, match="is not an HTTP address"):
        Client("127.0.0.1:8080")


class Moody(BaseHTTPRequestHandler):
    """Does to each POST what `moods` says next, and counts connections and requests."""

    protocol_version = "HTTP/1.1"
    moods: list[str]
    seen: list[Any]
    over: Event  # the end of the test
    datatypes: list[str]  # of `x`, as each question for metadata is told; the last one for good

    def do_GET(self) -> None:
        datatype = self.datatypes.pop(0) if len(self.datatypes) > 1 else self.datatypes[0]
        tensor = {"name": "x", "datatype": datatype, "shape": [-1]}
        self._say(200, {"name": "m", "platform": "p", "inputs": [tensor], "outputs": [{**tensor, "name": "y"}]})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.seen.append((self.client_address, asked))
        mood = self.moods.pop(0) if self.moods else "fine"
        if mood == "closes":
            self.close_connection = True
        elif mood in ("sleeps", "dribbles"):
            self.close_connection = True
            self._dribble(b" " * 600 if mood == "dribbles" else b"")
            self.seen.append("answered")
        elif mood in ("fine", "leaves"):
            self.close_connection = mood == "leaves"  # without a word of it
            self._say(
                200, {"model_name": "m", "outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [7]}]}
            )
        else:
            self._say(int(mood), {"error": "Full. Fix: wait."}, after="0")

    def _dribble(self, content: bytes) -> None:
        """Begin an answer and send a byte each tenth of a second; for a minute, or until the test is over."""
        if content:
            self.send_response(200)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
        for sent in range(600):
            with suppress(OSError):
                self.wfile.write(content[sent : sent + 1])
            if self.over.wait(0.1):
                return

    def _say(self, status: int, value: Any, after: str = "") -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        if after:
            self.send_header("retry-after", after)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def moody(*moods: str, datatypes: Sequence[str] = ("FP32",)) -> Iterator[tuple[str, list[Any]]]:
    """Give the URL of a server, and what it saw."""
    seen: list[Any] = []
    over = Event()
    handler = type("Handler", (Moody,), {"moods": [*moods], "seen": seen, "datatypes": [*datatypes], "over": over})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        over.set()
        server.shutdown()
        server.server_close()


QUICK = Retries(first_s=0.001)


def test_refused_for_the_moment_is_asked_again_over_the_same_connection(kind: Any) -> None:
    with moody("429", "503") as (url, seen), kind(url, retries=QUICK) as client:
        assert client.predict("m", {"x": 1.0}).values == [7]
        assert client.predict("m", {"x": 1.0}).values == [7]
    assert len(seen) == 4
    assert len({address for address, _ in seen}) == 1


def test_a_connection_that_was_closed_while_it_lay_idle_is_no_error(kind: Any) -> None:
    with moody("leaves", "leaves") as (url, seen), kind(url, retries=Retries(most=0)) as client:
        for _ in range(3):
            assert client.predict("m", {"x": 1.0}).values == [7]
            time.sleep(0.2)
    assert len({address for address, _ in seen}) == 3


def test_what_an_endpoint_takes_is_asked_for_again_when_it_has_changed(kind: Any) -> None:
    with moody("fine", "400", datatypes=["FP32", "FP64"]) as (url, seen), kind(url, retries=QUICK) as client:
        for _ in range(3):
            assert client.predict("m", {"x": 1.0}).values == [7]
    assert [asked["inputs"][0]["datatype"] for _, asked in seen] == ["FP32", "FP32", "FP64", "FP64"]


def test_what_is_refused_and_has_not_changed_is_refused(kind: Any) -> None:
    with moody("fine", "400") as (url, seen), kind(url, retries=QUICK) as client:
        client.predict("m", {"x": 1.0})
        with pytest.raises(Invalid, match="Full"):
            client.predict("m", {"x": 1.0})
    assert len(seen) == 2


def test_refused_for_good(kind: Any) -> None:
    with moody(*["429"] * 9) as (url, seen), kind(url, retries=QUICK) as client:
        with pytest.raises(Overloaded) as caught:
            client.predict("m", {"x": 1.0})
        assert (caught.value.what, len(seen)) == ("Full.", 1 + QUICK.most)


@pytest.mark.parametrize("mood", ["closes", "500"])
def test_what_may_have_been_predicted_is_not_asked_again(kind: Any, mood: str) -> None:
    with moody(mood) as (url, seen), kind(url, retries=QUICK) as client:
        with pytest.raises(MainspringError):
            client.predict("m", {"x": 1.0})
        assert len(seen) == 1


@pytest.mark.parametrize("mood", ["sleeps", "dribbles"])
def test_a_deadline_holds_for_the_whole_answer(kind: Any, mood: str) -> None:
    with moody(mood) as (url, seen), kind(url, retries=QUICK) as client:
        client.metadata("m")
        with pytest.raises(DeadlineExceeded, match="in time"):
            client.predict("m", {"x": 1.0}, timeout_s=0.4)
        assert len(seen) == 1  # and the server, which takes a minute, has not answered
        assert 0 < seen[0][1]["parameters"]["timeout"] <= 400_000


def test_importing_it_brings_neither_httpx_nor_numpy() -> None:
    code = "import sys, mainspring.client; print({'httpx', 'numpy', 'anyio'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
