"""The page of a package in a real browser: it verifies, computes and predicts as the Python runtime does."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import math
import os
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.console.chromium import DRIVEN, Browser, Page, browser
from kit.depth import examples
from kit.devices import TRUSTED, here, hostile_pairs, package, program
from kit.expressions import HOSTILE, SCHEMA, ZONES, expressions, rows
from kit.native_trees import trees
from kit.once import made_once
from kit.serving import KEY
from mainspring.core.errors import Corrupt, NotFound
from mainspring.core.expr import Node, col
from mainspring.core.expr.types import TIME_PARTS, TIME_STARTS, Typed, resolve
from mainspring.core.schema import DType, Schema
from mainspring.deploy.edge.program import to_json
from mainspring.deploy.edge.web import FILES, RELEASE, runtime_files, write_page
from mainspring_edge import load

pytestmark = DRIVEN

ROW = {
    "Carrier.flights_1h": 3,
    "Carrier.delay_1h": 12.5,
    "distance": 500.0,
    "scheduled_at": "2013-07-01T09:30:00+02:00",
}
# Computes features.json with rows of a package's JSON; every value comes back as a text that tells its bits.
COMPUTE = """(async () => {
    const { Features } = await import("/features.js");
    const { fromJson } = await import("/values.js");
    const features = new Features(%s);
    const shown = (value) => {
        if (typeof value !== "number") return value === null ? null : [typeof value, String(value)];
        if (Number.isNaN(value)) return ["number", "NaN"];
        const view = new DataView(new ArrayBuffer(8));
        view.setFloat64(0, value);
        return ["number", view.getBigUint64(0).toString(16).padStart(16, "0")];
    };
    const rows = %s.map((row) => Object.fromEntries(
        Object.entries(row).map(([name, value]) => [name, fromJson(value, features.inputs[name])])));
    return features.rows(rows).map((row) => row.map(shown));
})()"""


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two files of onnxruntime-web, fetched once for the environment."""
    kept = Path(sys.prefix) / RELEASE

    def fetch(_: Path) -> str:
        try:
            runtime_files(kept)
        except (NotFound, Corrupt):
            found = runtime_files(None)
            kept.mkdir(exist_ok=True)
            for name, content in found.items():
                (kept / name).write_bytes(content)
        return ""

    try:
        made_once(tmp_path_factory, "onnxruntime-web", fetch)
    except NotFound as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(error.what)
    return kept


@pytest.fixture(scope="module")
def folder(runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of `kit.serving`'s model."""
    made = tmp_path_factory.mktemp("edge")
    size = write_page(made / "page", package(made / "package"), TRUSTED, runtime=runtime)
    assert size == sum(path.stat().st_size for path in (made / "page").rglob("*") if path.is_file())
    return made / "page"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture(scope="module")
def page(chromium: Browser, address: str) -> Page:
    opened = chromium.page()
    opened.go(address)
    opened.until("document.querySelector('main').dataset.state")
    return opened


def test_the_page_is_ready_and_fetched_nothing_from_elsewhere(page: Page, address: str) -> None:
    assert page.do("document.querySelector('main').dataset.state") == "ready"
    assert page.do("document.querySelector('#state').textContent").startswith("Version 1: signature, files and golden")
    assert [url for url in page.requests if not url.startswith((address, "data:"))] == []
    assert page.complaints == []


def test_a_person_types_a_row_in(page: Page, folder: Path) -> None:
    for name, value in ROW.items():
        page.do(f"document.querySelector('[name=\"{name}\"]').value = {json.dumps(str(value))}")
    page.do("document.querySelector('form button').click()")
    page.until("document.querySelector('#answer').textContent")
    (wanted,) = load(folder / "package", TRUSTED).predict([ROW])["probability"]
    name, _, value = page.do("document.querySelector('#answer').textContent").partition(": ")
    assert name == "probability"
    assert float(value) == pytest.approx(wanted, abs=1e-6)
    page.do("document.querySelector('[name=\"scheduled_at\"]').value = '2013-07-01T09:30:00'")
    page.do("document.querySelector('form button').click()")
    page.until("document.querySelector('#answer').textContent.includes('not a timestamp')")


def test_predictions_are_those_of_the_python_runtime(page: Page, folder: Path) -> None:
    given_rows = [
        {**ROW, "Carrier.flights_1h": n, "Carrier.delay_1h": None if n % 5 == 0 else n / 3, "distance": 37.0 * n}
        for n in range(200)
    ]
    wanted = load(folder / "package", TRUSTED).predict(given_rows)["probability"]
    found = page.do(
        f"""(async () => {{
            const {{ load }} = await import("/device.js");
            const device = await load("{page.do("location.href")}package/", "{TRUSTED.hex()}");
            return (await device.predict({json.dumps(given_rows)})).probability;
        }})()"""
    )
    assert max(abs(one - other) for one, other in zip(found, wanted, strict=True)) <= 1e-6


def test_trees_of_another_library_answer_here_too(page: Page, folder: Path) -> None:
    package(folder / "trees", trees("lightgbm"))
    given_rows = [
        {**ROW, "Carrier.flights_1h": n, "Carrier.delay_1h": None if n % 5 == 0 else n / 3} for n in range(60)
    ]
    wanted = load(folder / "trees", TRUSTED).predict(given_rows)["probability"]
    found = page.do(
        f"""(async () => {{
            const {{ load }} = await import("/device.js");
            const device = await load("{page.do("location.href")}trees/", "{TRUSTED.hex()}");
            await device.selfTest();
            return (await device.predict({json.dumps(given_rows)})).probability;
        }})()"""
    )
    assert found == pytest.approx(wanted, abs=1e-12)
    said = page.do(
        f"""(async () => {{
            const {{ load }} = await import("/device.js");
            const device = await load("{page.do("location.href")}trees/", "{TRUSTED.hex()}");
            const rows = {json.dumps(given_rows)};
            rows[3]["Carrier.delay_1h"] = Infinity;
            return await device.predict(rows).catch((error) => `${{error.name}}: ${{error.message}}`);
        }})()"""
    )
    assert said == "InvalidRow: Input 'Carrier.delay_1h' is infinite, or too large for float64, in row 3."


def computed(page: Page, chosen: list[Node], columns: dict[str, list[Any]], schema: Schema) -> list[list[Any]]:
    made = program(chosen, schema)
    given_rows = [
        {name: to_json(value, schema[name]) for name, value in zip(columns, row, strict=True)}
        for row in zip(*columns.values(), strict=True)
    ]
    script = COMPUTE % (made.encode().decode(), json.dumps(given_rows))
    return [list(values) for values in zip(*page.do(script), strict=True)]


def shown(value: Any, dtype: DType) -> Any:
    """Return what the page says of a value."""
    if value is None:
        return None
    if isinstance(value, bool):
        return ["boolean", str(value).lower()]
    if isinstance(value, str):
        return ["string", value]
    if isinstance(value, int) and dtype is not DType.Int32:
        return ["bigint", str(value)]
    return ["number", "NaN" if math.isnan(value) else struct.pack(">d", value).hex()]


def check(page: Page, chosen: list[Node], columns: dict[str, list[Any]], schema: Schema) -> None:
    dtypes = [resolve(expression, schema).dtype for expression in chosen]
    wanted = here(chosen, columns, schema)
    assert computed(page, chosen, columns, schema) == [
        [shown(value, dtype) for value in values] for values, dtype in zip(wanted, dtypes, strict=True)
    ]


def exact(typed: Typed) -> bool:
    """Return whether a browser gives every bit: not of `log` and `exp`."""
    return typed.operation not in ("log", "exp") and all(map(exact, typed.arguments))


@settings(max_examples=examples(gate=60, deep=1_500))
@given(
    st.lists(expressions().filter(lambda each: exact(resolve(each, SCHEMA))), min_size=1, max_size=4),
    rows(),
)
def test_random_expressions_are_computed_to_the_bit(
    page: Page, chosen: list[Node], columns: dict[str, list[Any]]
) -> None:
    check(page, chosen, columns, SCHEMA)


def test_casts_and_clocks_are_computed_to_the_bit(page: Page) -> None:
    casts = {
        DType.String: (DType.Boolean, DType.Int32, DType.Int64, DType.Float32, DType.Float64),
        DType.Int64: (DType.Int32, DType.Float32, DType.Float64, DType.Boolean, DType.String, DType.Timestamp),
        DType.Float64: (DType.Int32, DType.Int64, DType.Float32, DType.Boolean),
        DType.Float32: (DType.Int32, DType.Int64, DType.Float64, DType.Boolean),
        DType.Boolean: (DType.Int32, DType.Int64, DType.Float32, DType.String),
    }
    for source, targets in casts.items():
        check(page, [col("a").cast(target) for target in targets], {"a": [*HOSTILE[source], None]}, {"a": source})
    fields = [getattr(col("t"), part)(zone) for part in TIME_PARTS for zone in ZONES]
    fields += [col("t").start_of(unit.removeprefix("start_of_"), zone) for unit in TIME_STARTS for zone in ZONES]
    check(page, fields, {"t": [*HOSTILE[DType.Timestamp], None]}, {"t": DType.Timestamp})


@pytest.mark.parametrize("dtype", [DType.String, DType.Int64, DType.Float32, DType.Float64])
def test_pairs_of_hostile_values_are_computed_to_the_bit(page: Page, dtype: DType) -> None:
    check(page, *hostile_pairs(dtype))


def test_log_and_exp_differ_in_the_last_bits_at_most(page: Page) -> None:
    columns = {"a": [*HOSTILE[DType.Float64], *(n / 7 for n in range(-300, 300))]}
    schema: Schema = {"a": DType.Float64}
    chosen: list[Node] = [col("a").log(), col("a").exp()]
    for ours, theirs in zip(here(chosen, columns, schema), computed(page, chosen, columns, schema), strict=True):
        for one, other in zip(ours, theirs, strict=True):
            if one is None or math.isnan(one):
                assert other == (None if one is None else ["number", "NaN"])
            else:
                (value,) = struct.unpack(">d", bytes.fromhex(other[1]))
                assert value == one or abs(value - one) <= 2 * math.ulp(one)


def test_values_of_other_types_are_named(page: Page) -> None:
    for change, words in (
        ({"distance": "500"}, "which is not a float32"),
        ({"distance": 1e39}, "which is not a float32"),
        ({"Carrier.flights_1h": 1.5}, "which is not a int64"),
        ({"scheduled_at": "2013-02-30T00:00:00Z"}, "which is not a timestamp"),
        ({"scheduled_at": "2013-07-01"}, "which is not a timestamp"),
    ):
        said = page.do(
            f"""(async () => {{
                const {{ Features }} = await import("/features.js");
                const document = await (await fetch("/package/features.json")).json();
                try {{ new Features(document).rows([{json.dumps({**ROW, **change})}]); }}
                catch (error) {{ return `${{error.name}}: ${{error.message}}`; }}
            }})()"""
        )
        assert said.startswith("InvalidRow: Input")
        assert words in said


def changed(folder: Path, name: str, change: Callable[[bytes], bytes]) -> bytes:
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(change(whole))
    return whole


def signed(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        content = json.dumps(change(json.loads((folder / "edge.json").read_bytes()))).encode()
        (folder / "edge.json").write_bytes(content)
        (folder / "edge.sig").write_bytes(KEY.sign(content))

    return apply


def golden(folder: Path) -> None:
    document = json.loads((folder / "golden.json").read_bytes())
    document["answers"]["probability"][3] += 0.01
    content = json.dumps(document).encode()
    (folder / "golden.json").write_bytes(content)
    listed = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    signed(lambda index: {**index, "files": {**index["files"], "golden.json": listed}})(folder)


def flip(name: str) -> Callable[[Path], object]:
    return lambda folder: changed(folder, name, lambda whole: whole[:99] + bytes([whole[99] ^ 1]) + whole[100:])


def cut(name: str) -> Callable[[Path], object]:
    return lambda folder: changed(folder, name, lambda whole: whole[:-1])


@pytest.mark.parametrize(
    ("spoil", "state"),
    [
        (flip("edge.json"), "signature"),
        (flip("model.onnx"), "changed"),
        (flip("features.json"), "changed"),
        (cut("golden.json"), "cut"),
        (cut("edge.sig"), "cut"),
        (lambda folder: (folder / "model.onnx").unlink(), "missing"),
        (signed(lambda index: {**index, "format": 2}), "format"),
        (signed(lambda index: {**index, "kind": "bundle"}), "format"),
        (signed(lambda index: {**index, "name": "fraud"}), "name"),
        (golden, "failed"),
    ],
)
def test_a_spoilt_package_is_refused_with_its_reason(
    chromium: Browser, address: str, folder: Path, spoil: Callable[[Path], object], state: str
) -> None:
    place = folder / "package"
    whole = {path.name: path.read_bytes() for path in place.iterdir()}
    try:
        spoil(place)
        opened = chromium.page()
        opened.go(address)
        opened.until("document.querySelector('main').dataset.state")
        assert opened.do("document.querySelector('main').dataset.state") == state
        assert opened.do("document.querySelector('form').hidden")
    finally:
        for name, content in whole.items():
            (place / name).write_bytes(content)


def test_only_the_pinned_release_is_taken(runtime: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"has no ort\.wasm"):
        runtime_files(tmp_path)
    for name in FILES:
        (tmp_path / name).write_bytes((runtime / name).read_bytes() + b" ")
    with pytest.raises(Corrupt, match="is not that of onnxruntime-web@1"):
        runtime_files(tmp_path)
