"""The main job: `mainspring demo --json`, run once under strace, for all workers, on a copy of the example.

The gate takes the flights of two months, and asks for ten days; the deep run has all of 2013.
"""

from __future__ import annotations

import re
import shutil
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kit.console.client import Client
from kit.console.crawl import crawl, reprs
from kit.depot import Depot, copied
from kit.depth import DEEP, deep, examples
from kit.once import made_once
from kit.pickles import pickles_in
from mainspring.console.app import create_app
from mainspring.core.time import DAY
from mainspring.operations.keys import create_key
from mainspring.project import open_project
from mainspring.project.settings import load_settings

EXAMPLE = Path(__file__).parents[2] / "examples" / "flights"
SORTED = '.sort_by("scheduled_departure")'
FEWER = (
    SORTED
    + """.filter(
        (pc.field("scheduled_departure") >= pa.scalar(datetime(2013, 5, 1, tzinfo=UTC)))
        & (pc.field("scheduled_departure") < pa.scalar(datetime(2013, 7, 11, tzinfo=UTC)))
    )"""
)
ASKED = examples(gate=9_100, deep=58_752)
PROMISED = {
    "rows_ingested", "training_rows", "auc", "baseline_auc", "gate", "model_version", "bundle_digest", "predictions",
    "p50_ms", "p99_ms", "errors", "labels_joined", "live_auc", "drifted_columns", "seconds",
}  # fmt: skip
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Demo:
    depot: Depot
    summary: dict[str, Any]
    stderr: str
    connections: list[str]  # the lines in which a process connected, or sent to somewhere, or looked somebody up
    home: Path


def _run(folder: Path) -> dict[str, Any]:
    """Run the demo on a copy of the example, and return its summary, its standard error and the ports it used."""
    shutil.copytree(EXAMPLE, folder / "flights", ignore=shutil.ignore_patterns(".mainspring", "__pycache__"))
    if not DEEP:
        data = folder / "flights" / "flights" / "data.py"
        fewer = data.read_text().replace(SORTED, FEWER)
        data.write_text(fewer.replace("import zipfile\n", "import zipfile\nfrom datetime import UTC, datetime\n"))
    (folder / "home").mkdir()
    depot = Depot(folder / "flights")
    traced = shutil.which("strace") is not None
    trace = ["strace", "-f", "-qq", "--seccomp-bpf", "-e", "trace=connect", "-o", str(folder / "trace")]
    ran = depot.run(
        "demo", "--json", environment={"HOME": str(folder / "home")}, prefix=trace if traced else (), timeout_s=500
    )
    assert ran.code == 0, ran.stderr[-3000:]
    return {"summary": ran.document, "stderr": ran.stderr, "ports": [depot.gateway, depot.control]}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """The demo's project, of which this worker has a copy, and what the demo said and did."""
    folder, told = made_once(tmp_path_factory, "demo", _run, wait_s=500)
    depot = copied(folder / "flights", tmp_path_factory.mktemp("demo") / "flights")
    depot.gateway, depot.control = told["ports"]
    trace = folder / "trace"
    lines = trace.read_text(errors="replace").splitlines() if trace.exists() else []
    return Demo(depot, told["summary"], told["stderr"], lines, folder / "home")


def test_it_says_what_happened(demo: Demo) -> None:
    found = demo.summary
    assert set(found) >= PROMISED
    assert found["rows_ingested"] > examples(gate=180_000, deep=900_000)
    assert found["training_rows"] > examples(gate=14_000, deep=100_000)
    assert 0.70 < found["auc"] < 0.85
    assert 0.5 < found["baseline_auc"] < found["auc"] - 0.005
    assert found["gate"] == "passed"
    assert found["model_version"] == "1"
    assert re.fullmatch("[0-9a-f]{64}", found["bundle_digest"])
    assert found["predictions"] == ASKED
    assert found["errors"] == 0
    assert 0.95 * ASKED < found["labels_joined"] < ASKED  # the cancelled and the diverted have none
    assert found["label_coverage"] == pytest.approx(found["labels_joined"] / found["predictions"], abs=1e-3)
    assert 0.68 < found["live_auc"] < 0.85
    assert 0 < found["p50_ms"] <= found["p99_ms"]
    assert found["features_compared"] > 50_000
    assert found["features_differing"] == 0
    assert isinstance(found["drifted_columns"], list)


def test_it_leaves_a_project_that_is_well_and_not_up(demo: Demo) -> None:
    assert demo.depot.json("doctor")["well"]
    status = demo.depot.json("status")
    assert status["up"] is None
    assert status["endpoints"][0]["predictions"] == ASKED


def test_its_answers_and_features_are_the_same_again(demo: Demo) -> None:
    found = demo.depot.json("replay", "--sample", "1000", "--endpoint", "late-arrival")
    assert found["outcomes"] == {"identical": 1000, "within tolerance": 0, "differs": 0, "cannot": 0}
    assert found["features_compared"] == found["features_equal"] > 10_000


@deep
def test_no_page_of_it_shows_a_value_as_python_writes_it(demo: Demo) -> None:
    with closing(open_project(load_settings(demo.depot.root, None))) as project:
        pages = crawl(Client(create_app(project), create_key(project, "reader", ["view"], DAY)))
    assert len(pages) > 25
    assert reprs(pages) == {}


@pytest.mark.parametrize(
    "command",
    ["runs", "models list", "features list", "features entity OriginTraffic EWR", "data log", "data profile weather",
     "jobs schedules", pytest.param("monitor late-arrival", marks=deep)],
)  # fmt: skip
def test_instants_of_a_json_document_are_texts(demo: Demo, command: str) -> None:
    text = demo.depot.run(*command.split(), "--json").stdout
    assert re.search(r'"2013-\d\d-\d\dT|"20[23]\d-\d\d-\d\dT', text)
    assert re.findall(r'"(?!sd")(\w+)": "?1\d{15}\b', text) == []


def test_its_key_is_shown_once_and_kept_nowhere(demo: Demo) -> None:
    [token] = re.findall(r"msp_[0-9a-z]{26}_[0-9A-Za-z]{51}", demo.stderr)
    for path in demo.depot.state.rglob("*"):
        assert not path.is_file() or token.encode() not in path.read_bytes(), path


def test_nothing_of_it_is_pickled(demo: Demo) -> None:
    assert pickles_in(demo.depot.state) == []


def test_it_connects_to_nobody_but_itself(demo: Demo) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    connected = [line for line in demo.connections if "connect(" in line and "resumed>" not in line]
    own = {f"htons({port})" for port in (demo.depot.gateway, demo.depot.control)}
    # The trace saw what there is: the replay's connections to the gateway.
    assert any(f"htons({demo.depot.gateway})" in line for line in connected)
    strange = [line for line in connected if not _within(line, own)]
    assert strange == []


def _within(line: str, own: set[str]) -> bool:
    """Whether a line of the trace is of a connection to a port of ours on this machine, or through a socket's file."""
    if "sa_family=AF_UNIX" in line:
        return True
    if "sa_family=AF_INET" not in line:
        return "sa_family=AF_UNSPEC" in line  # undoes a connection
    return ('inet_addr("127.0.0.1")' in line or '"::1"' in line) and any(port in line for port in own)


def test_it_writes_nowhere_but_into_its_state(demo: Demo) -> None:
    assert list(demo.home.rglob("*")) == []
