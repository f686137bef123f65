"""Files, functions and graphs go from the command line to a gateway in a process of its own; what is refused changes
nothing of what serves."""

from __future__ import annotations

import base64
import io
import json
import os
import pickle
import re
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from kit import prefork
from kit.depot import lay_out, opened
from kit.depth import deep
from kit.load import REST_S
from kit.models import identity, lightgbm_file, mlp, onnx_model, training_data, xgboost_file
from kit.serving import KEY
from kit.tensors import counted
from kit.waiting import free_port, wait_until
from mainspring.core.errors import Conflict, Corrupt, Invalid, MainspringError, NotFound
from mainspring.core.time import DAY
from mainspring.delivery.routing import publish
from mainspring.operations.keys import create_key
from mainspring.operations.models.adding import Added, add_file, add_function
from mainspring.operations.models.composing import Plan, Step, compose
from mainspring.operations.models.probing import Draft, probe
from mainspring.operations.promote import promote
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings
from mainspring.registry.model import AliasMove, Manifest, TensorSpec

pytestmark = pytest.mark.slow

SERVICE = """\
import mainspring as ms

endpoints = [
    ms.Endpoint(name, model=f"{name}@champion", deadline="20s")
    for name in ("network", "forest", "light", "scaled", "both", "texts", "counted")
]
"""
SCALED = """\
import numpy as np
from mine.numbers import TWICE


def scaled(x):
    return (x - np.float32(0.5)) * TWICE
"""
X4 = TensorSpec("x", "FP32", (-1, 4))


@dataclass
class Place:
    """A project with a gateway that runs."""

    project: Project
    port: int
    token: str

    @property
    def root(self) -> Path:
        return self.project.settings.root

    def write(self, name: str, content: bytes) -> Path:
        path = self.root.parent / name
        path.write_bytes(content)
        return path

    def add(self, model: str, name: str, content: bytes, **how: Any) -> Added:
        return add_file(self.project, model, self.write(name, content), **how)

    def infer(self, endpoint: str, **inputs: Any) -> dict[str, Any]:
        reply = self.reply(endpoint, **inputs)
        assert reply.status_code == 200, reply.text
        return {each["name"]: np.array(each["data"]).reshape(each["shape"]) for each in reply.json()["outputs"]}

    def reply(self, endpoint: str, **inputs: Any) -> httpx.Response:
        kinds = {
            np.dtype(np.float32): "FP32",
            np.dtype(np.float64): "FP64",
            np.dtype(np.object_): "BYTES",
            np.dtype(np.int64): "INT64",
        }
        body = {
            "inputs": [
                {
                    "name": name,
                    "shape": list(values.shape),
                    "datatype": kinds[values.dtype],
                    "data": values.ravel().tolist(),
                }
                for name, values in inputs.items()
            ]
        }
        url = f"http://127.0.0.1:{self.port}/v2/models/{endpoint}/infer"
        return httpx.post(
            url, json=body, headers={"authorization": f"Bearer {self.token}"}, timeout=60, trust_env=False
        )

    def live(self, endpoint: str, added: Added) -> None:
        """Wait until the gateway answers with a version."""
        url = f"http://127.0.0.1:{self.port}/v2/models/{endpoint}/versions/{added.version}/ready"
        headers = {"authorization": f"Bearer {self.token}"}
        wait_until(
            lambda: httpx.get(url, headers=headers, timeout=60, trust_env=False).status_code == 200,
            f"version {added.version} of {endpoint}",
        )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("models") / "mine"
    (root / "mine").mkdir(parents=True)
    port = free_port()
    (root / "mainspring.toml").write_text(
        f'name = "mine"\nmodules = ["mine.service"]\n\n[profiles.local]\ngateway = "127.0.0.1:{port}"\n'
    )
    for name, content in {
        "__init__.py": "",
        "service.py": SERVICE,
        "pre.py": SCALED,
        "numbers.py": "import numpy as np\n\nTWICE = np.float32(2)\n",
    }.items():
        (root / "mine" / name).write_text(content)
    project = open_project(load_settings(root))
    token = create_key(project, "test", ["predict"], DAY)
    with (root.parent / "gateway.log").open("wb") as log:
        process = subprocess.Popen(
            [prefork.programs() / "python", "-m", "mainspring.processes.gateway", "--project", str(root)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MAINSPRING_MODEL_TIME": "2s"},
        )
    made = Place(project, port, token)
    first = made.add("network", "network.onnx", mlp(0), alias="champion")
    try:
        wait_until(lambda: _answers(made, process, first), (root.parent / "gateway.log").read_text())
        yield made
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(place: Place, process: subprocess.Popen[bytes], added: Added) -> bool:
    assert process.poll() is None, (place.root.parent / "gateway.log").read_text()
    try:
        place.live("network", added)
    except httpx.HTTPError:
        return False
    return True


def network(seed: int, x: Any) -> Any:
    """Return the network's answers by arithmetic."""
    model = onnx.load_from_string(mlp(seed))
    weights = {each.name: onnx.numpy_helper.to_array(each).astype(np.float64) for each in model.graph.initializer}
    return np.tanh(x @ weights["w1"] + weights["b1"]) @ weights["w2"] + weights["b2"]


ROWS = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)


def test_an_onnx_file_is_served(place: Place) -> None:
    answers = place.infer("network", x=ROWS)
    np.testing.assert_allclose(answers["y"], network(0, ROWS), rtol=1e-5, atol=1e-5)


def test_a_request_that_makes_a_model_loop_without_end_holds_nobody(place: Place) -> None:
    """The gateway answers others meanwhile, the request is refused, and the model answers the next one."""
    content = counted(KEY).files["model.onnx"]
    rows = place.write("counted.json", b'{"inputs": {"n": [[1], [2]]}, "outputs": {"y": [[1.0], [2.0]]}}')
    added = place.add("counted", "counted.onnx", content, golden=rows, alias="champion")
    place.live("counted", added)
    with ThreadPoolExecutor(1) as held:
        endless = held.submit(place.reply, "counted", n=np.array([[2**40]], np.int64))
        answered = 0
        while not endless.done():
            place.infer("network", x=ROWS)
            answered += 1
            wait([endless], REST_S)
        refused = endless.result()
    assert answered > 1
    assert (refused.status_code, refused.json()["error"]) == (500, "The model failed.")
    assert place.infer("counted", n=np.array([[3]], np.int64))["y"].tolist() == [[3.0]]


def test_the_same_file_is_the_same_version_and_another_the_next(place: Place) -> None:
    again = place.add("network", "network.onnx", mlp(0))
    other = place.add("network", "other.onnx", mlp(7))
    assert (again.version, again.new) == ("1", False)
    assert other.new
    assert int(other.version) > 1
    version = place.project.versions.get("network", other.version)
    assert version.tags["file"] == "other.onnx"
    run = place.project.tracking.get(version.run_id)
    assert (run.status, run.params["digest"], run.tags["version"]) == ("FINISHED", other.digest, other.version)
    bundle = place.project.bundles.load(other.digest)
    assert sorted(bundle.files) == ["golden.json", "model.onnx"]


@deep
def test_forests_are_served_as_their_libraries_answer(place: Place) -> None:
    import lightgbm
    import xgboost

    matrix = np.nan_to_num(training_data(20, seed=9)[0])  # JSON has no NaN
    place.live("forest", place.add("forest", "forest.ubj", xgboost_file("multiclass"), alias="champion"))
    booster = xgboost.Booster(model_file=bytearray(xgboost_file("multiclass")))
    found = place.infer("forest", input=matrix)["output"].astype(np.float32)
    np.testing.assert_array_equal(found, booster.inplace_predict(matrix))
    place.live("light", place.add("light", "light.txt", lightgbm_file(), alias="champion"))
    wide = matrix.astype(np.float64)
    found = place.infer("light", input=wide)["output"]
    np.testing.assert_array_equal(found, lightgbm.Booster(model_str=lightgbm_file().decode()).predict(wide))


def test_texts_are_served(place: Place) -> None:
    place.live("texts", place.add("texts", "texts.onnx", identity("BYTES"), alias="champion"))
    words = np.array([["a", "", "ü"], ["b", "c", "日本"]], np.object_)
    assert place.infer("texts", x=words)["y"].tolist() == words.tolist()


def function(place: Place, **how: Any) -> Added:
    scaled = TensorSpec("scaled", "FP32", (-1, 4))
    return add_function(place.project, "scaled", "mine.pre:scaled", inputs=[X4], outputs=[scaled], **how)


def test_a_function_is_served_until_its_source_changes(place: Place) -> None:
    first = function(place, alias="champion")
    place.live("scaled", first)
    np.testing.assert_array_equal(place.infer("scaled", x=ROWS)["scaled"].astype(np.float32), (ROWS - 0.5) * 2)
    assert not function(place).new
    numbers = place.root / "mine" / "numbers.py"
    before = numbers.read_text()
    # The same size, and most likely within the second: a cache of bytecode would not see it.
    numbers.write_text(before.replace("float32(2)", "float32(3)"))
    try:
        second = function(place, alias="champion")
        assert second.new
        place.live("scaled", second)
        np.testing.assert_array_equal(place.infer("scaled", x=ROWS)["scaled"].astype(np.float32), (ROWS - 0.5) * 3)
        # What was registered with the earlier source cannot be loaded any more, and says why.
        bundle = place.project.bundles.load(first.digest)
        from mainspring.project.executors import executors

        with pytest.raises(Corrupt, match="has changed since it was registered"):
            executors(place.project)(bundle)
    finally:
        numbers.write_text(before)


def test_a_graph_of_a_function_and_two_networks_is_served(place: Place) -> None:
    pre = function(place)
    other = place.add("network", "other.onnx", mlp(7))
    plan = Plan(
        (
            Step(name="pre", model=f"scaled@{pre.version}", inputs={"x": "x"}),
            Step(name="one", model="network@1", inputs={"x": "pre.scaled"}),
            Step(name="two", model=f"network@{other.version}", inputs={"x": "pre.scaled"}),
            Step(name="all", combine="weighted", weights=(1, 3), inputs={"one": "one.y", "two": "two.y"}),
        ),
        {"y": "all.value", "one": "one.y"},
    )
    added = compose(place.project, "both", plan, alias="champion")
    place.live("both", added)
    answers = place.infer("both", x=ROWS)
    scaled = (ROWS.astype(np.float64) - 0.5) * 2
    np.testing.assert_allclose(answers["one"], network(0, scaled), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        answers["y"], 0.25 * network(0, scaled) + 0.75 * network(7, scaled), rtol=1e-4, atol=1e-4
    )
    manifest = place.project.bundles.load(added.digest).manifest
    assert manifest.graph is not None
    assert {node.bundle for node in manifest.graph.nodes if node.bundle} == {
        pre.digest,
        other.digest,
        place.project.versions.get("network", "1").digest,
    }


def test_a_graph_whose_parts_do_not_fit_is_refused(place: Place) -> None:
    add_function(
        place.project,
        "wide",
        "mine.pre:scaled",
        inputs=[TensorSpec("x", "FP32", (-1, 5))],
        outputs=[TensorSpec("wide", "FP32", (-1, 5))],
    )
    plans: dict[str, tuple[Plan, str]] = {
        "shape": (_chain("wide@1", "network@1", "wide"), "takes 'x' FP32.*receives 'wide' FP32"),
        "output": (_chain("network@1", "network@1", "nothing"), "from 'a.nothing'"),
        "circle": (
            Plan(
                (_step("a", "network@1", "b.y"), _step("b", "network@1", "a.y"), _step("c", "network@1", "x")),
                {"y": "b.y"},
            ),
            "cycle: a -> b -> a",
        ),
        "version": (_chain("network@99", "network@1", "y"), "no network:99"),
        "alias": (_chain("network", "network@1", "y"), "network@champion"),
    }
    for plan, said in plans.values():
        with pytest.raises(MainspringError, match=said) as caught:
            compose(place.project, "wrong", plan)
        assert isinstance(caught.value, (Invalid, Corrupt, NotFound))
    assert place.project.versions.all("wrong") == []


def _step(name: str, model: str, source: str) -> Step:
    return Step(name=name, model=model, inputs={"x": source})


def _chain(first: str, second: str, output: str) -> Plan:
    return Plan((_step("a", first, "x"), _step("b", second, f"a.{output}")), {"y": "b.y"})


def external() -> bytes:
    made = onnx.load_from_string(mlp())
    made.graph.initializer[0].ClearField("raw_data")
    made.graph.initializer[0].data_location = TensorProto.EXTERNAL
    made.graph.initializer[0].external_data.add(key="location", value="weights.bin")
    return made.SerializeToString()


def foreign() -> bytes:
    node = helper.make_node("Anything", ["x"], ["y"], domain="com.example")
    made = helper.make_model(
        helper.make_graph(
            [node],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 4])],
        ),
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("com.example", 1)],
    )
    return made.SerializeToString()


def zipped(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, b"x")
    return file.getvalue()


def fixed(rows: int) -> bytes:
    return mlp(0, batch=rows)


def mates() -> bytes:
    """Each row less the largest of its batch."""
    nodes = [
        helper.make_node("ReduceMax", ["x", "axes"], ["m"], keepdims=1),
        helper.make_node("Sub", ["x", "m"], ["y"]),
    ]
    return onnx_model(nodes, [("x", "FP32", [None, 4])], [("y", "FP32", [None, 4])], axes=np.array([0], np.int64))


def huge() -> bytes:
    """A model that takes rows of 16 GB."""
    node = helper.make_node("ReduceSum", ["x"], ["y"], keepdims=1)
    return onnx_model([node], [("x", "FP32", [None, 4_000_000_000])], [("y", "FP32", [None, 1])])


def hungry() -> bytes:
    """A small file whose answer would need 4 TB."""
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["big"]),
        helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    size = np.array([2**40], np.int64)
    return onnx_model(nodes, [("x", "FP32", [None, 4])], [("y", "FP32", [None, 4])], size=size)


class Dangerous:
    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/should-not-be",)


REFUSED: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "external data": ("m.onnx", external, "another file"),
    "foreign operators": ("m.onnx", foreign, "com.example"),
    "truncated onnx": ("m.onnx", lambda: mlp()[:-7], "truncated"),
    "truncated ubj": ("m.ubj", lambda: xgboost_file()[:-7], "truncated"),
    "truncated json": ("m.json", lambda: xgboost_file("regression", "json")[:-7], "truncated"),
    "truncated txt": ("m.txt", lambda: lightgbm_file()[:-400], "truncated"),
    "empty": ("m.onnx", lambda: b"", "empty"),
    "text": ("m.onnx", lambda: b"hello, this is not a model at all", "m.onnx"),
    "pickle by name": ("m.pkl", mlp, "runs code"),
    "pickle by content": ("m.onnx", lambda: pickle.dumps(Dangerous()), "runs code"),
    "old pickle": ("m.txt", lambda: pickle.dumps({"a": [1, 2]}, 0), "runs code"),
    "joblib": ("m.joblib", mlp, "runs code"),
    "torch by name": ("m.pt", mlp, "runs code"),
    "torch by content": ("m.onnx", lambda: zipped("archive/data.pkl"), "zip archive"),
    "keras by name": ("m.keras", mlp, "Keras"),
    "keras by content": ("m.ubj", lambda: b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
    "gzip": ("m.json", lambda: b"\x1f\x8b" + bytes(50), "compressed"),
    "no name": ("model", mlp, "a name that does not identify"),
    "json of something else": ("m.json", lambda: json.dumps({"a": 1}).encode(), "not an XGBoost model"),
    "a forest by another name": ("m.txt", xgboost_file, "does not start"),
    "linear": ("m.ubj", lambda: xgboost_file("linear"), "only trees"),
    "a fixed batch": ("m.onnx", lambda: fixed(3), "only batches of size 3"),
    "batch mates": ("m.onnx", mates, "different values for golden row"),
    "rows of absurd size": ("m.onnx", huge, "4,000,000,000 values"),
    "absurd memory": ("m.onnx", hungry, "failed|memory|crashed"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused_says_why_and_changes_nothing(place: Place, kind: str) -> None:
    name, content, said = REFUSED[kind]
    before = place.project.versions.all()
    with pytest.raises((Invalid, Corrupt), match=said) as caught:
        place.add("network", name, content(), alias="champion")
    assert caught.value.what
    assert place.project.versions.all() == before
    np.testing.assert_allclose(place.infer("network", x=ROWS)["y"], network(0, ROWS), rtol=1e-5, atol=1e-5)


def test_links_folders_and_what_is_not_there_are_refused(place: Place) -> None:
    file = place.write("real.onnx", mlp())
    link = file.with_name("link.onnx")
    link.symlink_to(file)
    os.mkfifo(file.with_name("pipe.onnx"))
    file.with_name("folder.onnx").mkdir()
    for name in ("link.onnx", "pipe.onnx", "folder.onnx"):
        with pytest.raises(Invalid, match="regular file"):
            add_file(place.project, "network", file.with_name(name))
    with pytest.raises(NotFound, match=r"absent\.onnx"):
        add_file(place.project, "network", file.with_name("absent.onnx"))


def test_a_file_of_absurd_size_is_not_read(place: Place) -> None:
    path = place.write("large.onnx", b"")
    with path.open("wb") as file:
        file.truncate(3 * 1024**3)  # a hole: it takes no space
    with pytest.raises(Invalid, match="3,221,225,472 bytes"):
        add_file(place.project, "network", path)
    path.unlink()


def test_golden_rows_of_ones_own_are_held_to(place: Place) -> None:
    right = {"inputs": {"x": ROWS.tolist()}, "outputs": {"y": network(0, ROWS).tolist()}}
    added = place.add("given", "m.onnx", mlp(0), golden=place.write("right.json", json.dumps(right).encode()))
    assert added.golden_rows == 5
    wrong = {"inputs": {"x": ROWS.tolist()}, "outputs": {"y": network(7, ROWS).tolist()}}
    refused: dict[str, tuple[bytes, str]] = {
        "wrong": (json.dumps(wrong).encode(), "golden row 0"),
        "uneven": (json.dumps({"inputs": {"x": [[1.0], [1.0, 2.0]]}}).encode(), "'x'"),
        "text": (b"{", "does not contain golden rows"),
        "other": (json.dumps({"inputs": {"z": [[1.0]]}}).encode(), "'x' is missing"),
        "none": (json.dumps({"inputs": {"x": []}}).encode(), "rows"),
    }
    for name, (content, said) in refused.items():
        with pytest.raises((Invalid, Corrupt), match=said):
            place.add("given", "m.onnx", mlp(0), golden=place.write(f"{name}.json", content))
    assert len(place.project.versions.all("given")) == 1


def flip(folder: Path) -> None:
    content = bytearray((folder / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "model.onnx").write_bytes(content)


def unsign(folder: Path) -> None:
    (folder / "signature").write_bytes(bytes(64))


def smuggle(folder: Path) -> None:
    (folder / "model.pkl").write_bytes(pickle.dumps(Dangerous()))


DAMAGED: dict[str, tuple[Callable[[Path], None], str]] = {
    "a bit": (flip, r"model\.onnx of .* was changed"),
    "another signature": (unsign, "signature"),
    "a file more": (smuggle, r"is not in its manifest: model\.pkl"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_version_that_is_damaged_afterwards_is_not_served_and_the_one_before_goes_on(place: Place, kind: str) -> None:
    damage, said = DAMAGED[kind]
    added = place.add("network", "damaged.onnx", mlp(100 + list(DAMAGED).index(kind)))
    damage(place.project.settings.state / "bundles" / added.digest)
    with pytest.raises(Corrupt, match=said):
        promote(place.project, "network", added.version)
    # Whoever moves the alias past the check does not get it served either.
    versions = place.project.versions
    now = place.project.wall.now()
    versions.set_alias(AliasMove("network", "champion", "1", added.version, "test", "", now))
    try:
        publish(list(place.project.definitions.endpoints.values()), versions, place.project.routes, gated=())
        log = place.root.parent / "gateway.log"
        wait_until(lambda: re.search(f"Bundle {added.digest[:12]} is not served: .*{said}", log.read_text()), said)
        np.testing.assert_allclose(place.infer("network", x=ROWS)["y"], network(0, ROWS), rtol=1e-5, atol=1e-5)
    finally:
        versions.set_alias(AliasMove("network", "champion", added.version, "1", "test", "", now))
        publish(list(place.project.definitions.endpoints.values()), versions, place.project.routes, gated=())


def test_functions_that_are_not_the_projects_are_refused(place: Place) -> None:
    for reference, said in {
        "os:system": "no module 'os' in the project",
        "mine.absent:f": "no module",
        "mine/pre.py:scaled": "is not the name of a function",
        "../mine.pre:scaled": "is not the name of a function",
        "mine.pre:absent": "no function 'absent'",
        "mine.pre": "is not the name of a function",
    }.items():
        with pytest.raises((Invalid, Corrupt), match=said):
            add_function(place.project, "scaled", reference, inputs=[X4], outputs=[X4])


def test_a_function_that_crashes_or_hangs_when_it_is_tried_takes_nothing_with_it(place: Place) -> None:
    (place.root / "mine" / "bad.py").write_text(
        "import ctypes, time\n\n"
        "def crash(x):\n    ctypes.string_at(0)\n\n"
        "def hang(x):\n    time.sleep(600)\n\n"
        "def fail(x):\n    raise ValueError('of its own')\n\n"
        "def wrong(x):\n    return x[:1]\n"
    )
    crashed = "the model crashed|ended 2 times in a row"  # which of its calls meets the process that has ended
    for name, said in {"crash": crashed, "fail": "ValueError: of its own", "wrong": "of shape"}.items():
        with pytest.raises(MainspringError, match=said):
            add_function(place.project, "bad", f"mine.bad:{name}", inputs=[X4], outputs=[X4])
    from mainspring.project.definitions.functions import source_digest
    from mainspring.registry.model import Code

    manifest = Manifest(
        model="bad", task="tensors", flavour="function", inputs=(), outputs=("x",), run_id="", dataset_commit="",
        features_digest="", code_version="", created_at=0, tensors=(X4,), output_tensors=(X4,),
        code=Code("mine.bad:hang", source_digest(place.root, "mine.bad:hang")),
    )  # fmt: skip
    with pytest.raises(Invalid, match="did not respond"):
        probe(place.project, Draft(manifest, ()), {}, longest_s=2.0)
    assert place.project.versions.all("bad") == []


def test_a_model_that_the_project_trains_keeps_its_name_to_itself(tmp_path: Path) -> None:
    project = opened(lay_out(tmp_path / "depot"))
    (tmp_path / "m.onnx").write_bytes(mlp(0))
    with pytest.raises(Conflict, match="mainspring train late-parcel"):
        add_file(project, "late-parcel", tmp_path / "m.onnx")


def test_the_command_line_says_what_was_registered(place: Place) -> None:
    path = place.write("cli.onnx", mlp(3))
    program = prefork.programs() / "mainspring"
    command = [program, "models", "add", "cli", str(path), "--project", str(place.root)]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["model"], document["version"], document["flavour"]) == ("cli", "1", "onnx")
    assert document["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    refused = subprocess.run(
        [*command[:4], str(place.write("m.pkl", b"x")), *command[5:], "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode != 0
    assert "runs code" in json.loads(refused.stdout)["error"]["what"]
    listed = subprocess.run(
        [program, "models", "list", "cli", "--json", "--project", str(place.root)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert [each["version"] for each in json.loads(listed.stdout)] == ["1"]


def test_nothing_of_a_pickle_ran() -> None:
    assert base64.b64encode(pickle.dumps(Dangerous()))  # the kit is what it says
    assert not Path("/tmp/should-not-be").exists()
