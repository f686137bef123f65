"""Bad input: one clear line with the fix, the documented exit code, no traceback, and nothing half-written."""

from __future__ import annotations

import ctypes
import hashlib
import os
import resource
import shutil
import socket
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kit.depot import ENDPOINT, FEATURES, MODEL, MODEL_PY, SERVICE, TOML, Depot, Ran, copied, lay_out, opened
from mainspring.cli import exits

Change = Callable[[Depot], object]
Trained = tuple[Path, dict[str, Any]]


@pytest.fixture(scope="module")
def landed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose definitions are applied and whose data has landed, to be copied."""
    depot = lay_out(tmp_path_factory.mktemp("landed") / "depot")
    depot.json("apply")
    depot.ingest_all()
    return depot.root


def content(depot: Depot) -> dict[str, str]:
    """Return what the state holds: each file's digest, each database's rows. Locks and logs hold nothing.

    The audit log says what was tried, also in vain.
    """
    found = {}
    for path in sorted(depot.state.rglob("*")):
        name = path.relative_to(depot.state)
        if not path.is_file() or name.parts[0] in ("locks", "logs") or ".locks" in name.parts:
            continue
        if path.suffix == ".db":
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
                rows = (line for line in connection.iterdump() if not line.startswith('INSERT INTO "audit_'))
                found[str(name)] = hashlib.sha256("\n".join(rows).encode()).hexdigest()
        elif not path.name.endswith((".db-wal", ".db-shm")):
            found[str(name)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def check_refused(ran: Ran, code: int, *words: str) -> str:
    """The error is one line and its fix, names what is wrong, and has the code. Return what it said."""
    said = ran.stderr
    assert ran.code == code, ran
    assert "Traceback" not in said + ran.stdout
    lines = [line for line in said.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, said
    assert "Fix: " in said
    for word in words:
        assert word in said, (word, said)
    return said


# Commands on a project whose data has landed


def write(name: str, text: str) -> Change:
    return lambda depot: (depot.root / name).write_text(text)


BAD_COMMANDS: dict[str, tuple[Change, list[str], int, list[str]]] = {
    "missing file": (lambda _: None, ["ingest", "posted", "nowhere.csv"], exits.NOT_FOUND, ["nowhere.csv"]),
    "missing column": (
        write("new.csv", "parcel,hub,posted_at\na,north,2024-01-01T00:00:00Z\n"),
        ["ingest", "posted", "new.csv"],
        exits.DATA,
        ["weight"],
    ),
    "column of another type": (
        write("new.csv", "parcel,hub,weight,posted_at\na,north,heavy,2024-01-01T00:00:00Z\n"),
        ["ingest", "posted", "new.csv"],
        exits.DATA,
        ["weight", "heavy"],
    ),
    "naive timestamp": (
        write("new.csv", "parcel,hub,weight,posted_at\na,north,1,2024-01-01T00:00:00\n"),
        ["ingest", "posted", "new.csv"],
        exits.DATA,
        ["posted_at"],
    ),
    "a binary file": (
        lambda depot: (depot.root / "new.csv").write_bytes(bytes(range(256)) * 10),
        ["ingest", "posted", "new.csv"],
        exits.DATA,
        ["new.csv"],
    ),
    "a folder": (lambda _: None, ["ingest", "posted", "parcels"], exits.DATA, ["parcels"]),
    "unknown source": (lambda _: None, ["ingest", "parcels", "posted.csv"], exits.NOT_FOUND, ["parcels", "posted"]),
    "unknown function": (lambda _: None, ["ingest", "posted", "parcels.data:rows"], exits.USAGE, ["parcels.data"]),
    "a function that fails": (
        write("parcels/data.py", "def rows():\n    return {}['x']\n"),
        ["ingest", "posted", "parcels.data:rows"],
        exits.DATA,
        ["data.py:2", "KeyError"],
    ),
    "a generator that fails": (
        write("parcels/data.py", "def rows():\n    yield {}['x']\n"),
        ["ingest", "posted", "parcels.data:rows"],
        exits.DATA,
        ["data.py:2", "KeyError"],
    ),
    "unknown model": (lambda _: None, ["train", "early-parcel"], exits.NOT_FOUND, ["early-parcel", MODEL]),
    "no version": (lambda _: None, ["promote", MODEL], exits.NOT_FOUND, ["mainspring train"]),
    "unknown endpoint": (lambda _: None, ["monitor", "early-parcel"], exits.NOT_FOUND, ["early-parcel", ENDPOINT]),
    "nothing served": (lambda _: None, ["predict", ENDPOINT, "hub=north"], exits.NOT_FOUND, ["mainspring train"]),
    "unknown view": (lambda _: None, ["materialize", "HubLoads"], exits.NOT_FOUND, ["HubLoads", "HubLoad"]),
    "no such instant": (lambda _: None, ["train", MODEL, "--until", "soon"], exits.USAGE, ["soon"]),
    "naive instant": (lambda _: None, ["train", MODEL, "--until", "2024-01-01T00:00:00"], exits.USAGE, ["2024-01-01"]),
    "unknown profile": (lambda _: None, ["status", "--profile", "moon"], exits.NOT_FOUND, ["moon", "local"]),
    "unknown commit": (lambda _: None, ["data", "tag", "t", "nothing"], exits.NOT_FOUND, ["nothing"]),
    "unknown key": (lambda _: None, ["keys", "revoke", "nobody"], exits.NOT_FOUND, ["nobody", "mainspring keys list"]),
    "no such duration": (
        lambda _: None,
        ["keys", "create", "a", "--scope", "view", "--expires", "ever"],
        exits.USAGE,
        ["ever"],
    ),
    "bad toml": (write("mainspring.toml", "name = depot"), ["status"], exits.USAGE, ["mainspring.toml", "line 1"]),
    "profiles that are none": (write("mainspring.toml", "profiles = 3"), ["status"], exits.USAGE, ["profiles"]),
    "unknown setting": (write("mainspring.toml", TOML + "port = 1\n"), ["status"], exits.USAGE, ["port"]),
    "a duration of zero": (
        write("mainspring.toml", TOML.replace('"1h"', '"0s"')),
        ["status"],
        exits.USAGE,
        ["monitor_window", "0s"],
    ),
    "unknown module": (
        write("mainspring.toml", TOML.replace("parcels.model", "parcels.models")),
        ["apply"],
        exits.USAGE,
        ["parcels.models", "mainspring.toml"],
    ),
    "no toml": (
        lambda depot: (depot.root / "mainspring.toml").unlink(),
        ["status"],
        exits.NOT_FOUND,
        ["mainspring.toml", "mainspring init"],
    ),
    "no folder": (lambda _: None, ["status", "--project", "nowhere"], exits.NOT_FOUND, ["nowhere"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_COMMANDS)
def test_a_command_that_cannot_be(case: str, landed: Path, tmp_path: Path) -> None:
    change, arguments, code, words = BAD_COMMANDS[case]
    depot = copied(landed, tmp_path / "depot")
    change(depot)
    before = content(depot)
    ran = depot.run(*arguments)
    check_refused(ran, code, *words)
    after = content(depot)
    for name in {"tracking.db", ".tracking.db.lock"} - before.keys():
        after.pop(name, None)  # looking for versions makes the store that they would be in
    assert after == before


def test_debug_shows_the_traceback_and_ends_the_same(landed: Path, tmp_path: Path) -> None:
    ran = copied(landed, tmp_path / "depot").run("ingest", "posted", "nowhere.csv", "--debug")
    assert ran.code == exits.NOT_FOUND
    assert "Traceback" in ran.stderr


# Definitions


def features(old: str, new: str) -> dict[str, str]:
    assert old in FEATURES
    return {"features": FEATURES.replace(old, new)}


BAD_DEFINITIONS: dict[str, tuple[dict[str, str], str, list[str]]] = {
    "a column that the source lacks": (
        features('ms.mean("backlog", window="3h")', 'ms.mean("backlogs", window="3h")'),
        "@ms.feature_view(",
        ["HubLoad.mean_backlog_3h", "backlogs", "backlog"],
    ),
    "a column that the request lacks": (
        features('weight = ms.col("weight")', 'weight = ms.col("wait")'),
        "@ms.request_features",
        ["Parcel.weight", "wait"],
    ),
    "the wrong type": (
        features('ms.mean("backlog", window="3h")', 'ms.mean("hub", window="3h")'),
        "@ms.feature_view(",
        ["HubLoad.mean_backlog_3h", "String"],
    ),
    "a key of another type": (
        features('keys={"hub": ms.String}', 'keys={"hub": ms.Int64}'),
        "@ms.feature_view(",
        ["hub", "Int64", "String"],
    ),
    "a window shorter than a hop": (
        features('scans_3h = ms.count(window="3h")', 'scans_3h = ms.count(window="1m")'),
        "@ms.feature_view(",
        ["HubLoad.scans_3h", "1m", "5m"],
    ),
    "a duration that is none": (
        features('scans_3h = ms.count(window="3h")', 'scans_3h = ms.count(window="three hours")'),
        "scans_3h =",
        ["three hours"],
    ),
    "two of one name": (
        {"service": SERVICE + '\nms.Endpoint("late-parcel", model="late-parcel@champion")\n'},
        'ms.Endpoint("late-parcel", model="late-parcel@champion")',
        ["two endpoints", "'late-parcel'", "service.py:5"],
    ),
    "two sources of one name": (
        features('"deliveries",', '"scans",'),
        "deliveries = ",
        ["two sources", "'scans'"],
    ),
    "an endpoint of no model": (
        {"service": SERVICE.replace("late-parcel@", "early-parcel@")},
        "ms.Endpoint(",
        ["early-parcel", "late-parcel"],
    ),
    "a label that the source lacks": (
        {"model": MODEL_PY.replace("deliveries.late", "deliveries.lateness")},
        "label=deliveries.lateness",
        ["lateness"],
    ),
    "a baseline of other features": (
        {"model": MODEL_PY.replace("features=[HubLoad, Parcel]", "features=[HubLoad]")},
        "@ms.model(",
        ["baseline", "Parcel"],
    ),
    "a task that is none": ({"model": MODEL_PY.replace('"binary"', '"ternary"')}, "@ms.model(", ["ternary", "binary"]),
    "a gate on no metric": (
        {"model": MODEL_PY.replace('beats("auc"', 'beats("auk"')},
        "@ms.model(",
        ["auk", "auc"],
    ),
    "a syntax error": ({"model": MODEL_PY + "\ndef broken(:\n"}, "def broken(:", ["SyntaxError"]),
    "an import that is none": ({"model": "import nonesuch\n" + MODEL_PY}, "import nonesuch", ["nonesuch"]),
    "modules in a cycle": (
        {"features": "from parcels.model import train\n" + FEATURES},
        "from parcels.features import",
        ["circular", "one direction"],
    ),
    "a mistake of the author": ({"service": SERVICE + "\n1 / 0\n"}, "1 / 0", ["ZeroDivisionError"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_DEFINITIONS)
def test_definitions_that_do_not_hold_together(case: str, landed: Path, tmp_path: Path) -> None:
    files, line, words = BAD_DEFINITIONS[case]
    depot = copied(landed, tmp_path / "depot")
    for name, text in files.items():
        (depot.root / "parcels" / f"{name}.py").write_text(text)
    places = [
        f"{path}:{number}: "
        for path in (depot.root / "parcels").glob("*.py")
        for number, each in enumerate(path.read_text().splitlines(), 1)
        if line in each
    ]
    before = content(depot)
    said = check_refused_definitions(depot.run("apply"), *words)
    assert any(place in said for place in places), (places, said)
    assert content(depot) == before


def check_refused_definitions(ran: Ran, *words: str) -> str:
    """Each problem is one line that ends with its fix."""
    assert ran.code == exits.USAGE, ran
    assert "Traceback" not in ran.stderr
    first, *problems = ran.stderr.splitlines()
    assert first.startswith("Error: The project has ")
    assert all(" Fix: " in problem for problem in problems), ran.stderr
    for word in words:
        assert word in ran.stderr, (word, ran.stderr)
    return ran.stderr


def test_all_problems_are_said_at_once(landed: Path, tmp_path: Path) -> None:
    depot = copied(landed, tmp_path / "depot")
    text = FEATURES.replace('window="3h")', 'window="1m")').replace('ms.col("weight")', 'ms.col("wait")')
    (depot.root / "parcels" / "features.py").write_text(text)
    ran = depot.run("apply")
    assert ran.stderr.startswith("Error: The project has 3 problems:")
    doctor = depot.run("doctor", "--json")
    assert (doctor.code, doctor.document["well"]) == (exits.UNHEALTHY, False)


# Training and promotion


@pytest.mark.slow
def test_a_model_that_cannot_be_converted(landed: Path, tmp_path: Path) -> None:
    depot = copied(landed, tmp_path / "depot")
    made = """
    class Mean:
        classes_ = [False, True]
        def fit(self, X, y): return self
        def predict(self, X): return [False] * len(X)
        def predict_proba(self, X): return [[0.5, 0.5]] * len(X)
    return Mean()
"""
    head = MODEL_PY.partition("    from sklearn")[0]
    (depot.root / "parcels" / "model.py").write_text(head + made)
    ran = depot.run("train", MODEL)
    check_refused(ran, exits.NOT_CONVERTIBLE, "Mean")
    assert not (depot.state / "bundles").exists() or list((depot.state / "bundles").glob("[!.]*")) == []
    assert [run.status for run in opened(depot).tracking.search(MODEL)] == ["FAILED"]
    assert depot.json("doctor")["well"]


def test_a_training_function_that_fails(landed: Path, tmp_path: Path) -> None:
    depot = copied(landed, tmp_path / "depot")
    (depot.root / "parcels" / "model.py").write_text(MODEL_PY.replace("    trees =", "    1 / 0\n    trees ="))
    ran = depot.run("train", MODEL)
    assert ran.code == exits.INTERNAL
    assert "ZeroDivisionError" in ran.stderr
    assert "model.py" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert [run.status for run in opened(depot).tracking.search(MODEL)] == ["FAILED"]


def test_a_version_that_misses_its_gate(depot: Depot) -> None:
    strict = MODEL_PY.replace('ms.beats("auc", by=0.01)', 'ms.beats("auc", by=0.9), ms.at_most("brier", 0.01)')
    (depot.root / "parcels" / "model.py").write_text(strict)
    before = content(depot)
    ran = depot.run("promote", MODEL, "2", "--json")
    assert ran.code == exits.GATE
    document = ran.document
    assert (document["promoted"], document["previous"]) == (False, "1")
    failed = [result for result in document["results"] if not result["passed"]]
    assert {result["gate"] for result in failed} == {"auc beats by 0.9", "brier at most 0.01"}
    assert all(result["short_by"] > 0.1 for result in failed)
    assert depot.json("status")["endpoints"][0]["versions"] == {"1": 1.0}
    after = content(depot)
    changed = {name for name in after if after[name] != before.get(name)}
    assert "catalog.db" in changed  # the audit log has it
    assert changed <= {"catalog.db", "keys/ledger", "ledger/lake"}  # `status` looks at the log of predictions


# What is stored


def test_a_bundle_that_was_changed(depot: Depot) -> None:
    digest = depot.json("status")["endpoints"][0]["digest"]
    model = depot.state / "bundles" / digest / "model.onnx"
    damaged = bytearray(model.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    model.chmod(0o600)
    model.write_bytes(damaged)
    check_refused(depot.run("promote", MODEL, "2"), exits.CORRUPT, "model.onnx", "changed")
    doctor = depot.run("doctor", "--json")
    assert doctor.code == exits.UNHEALTHY
    assert [each["check"] for each in doctor.document["findings"] if not each["ok"]] == ["models"]


def garble(path: Path) -> None:
    path.write_bytes(b"These are not the pages of a database." * 500)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])


@pytest.mark.parametrize(
    ("name", "damage", "check", "arguments"),
    [
        ("catalog.db", garble, "catalog", ["status"]),
        ("catalog.db", cut, "catalog", ["keys", "list"]),
        ("tracking.db", garble, "runs", ["promote", MODEL]),
        ("online.db", cut, "online store", ["materialize"]),
    ],
)
def test_a_damaged_database(damage: Any, name: str, check: str, arguments: list[str], depot: Depot) -> None:
    path = depot.state / name
    damage(path)
    before = path.read_bytes()
    check_refused(depot.run(*arguments), exits.CORRUPT, name)
    doctor = depot.run("doctor", "--json")
    assert doctor.code == exits.UNHEALTHY
    assert check in [each["check"] for each in doctor.document["findings"] if not each["ok"]]
    assert path.read_bytes() == before  # nothing was written over what may still be rescued


# Ports and a second `up`


def test_a_port_that_is_in_use_and_a_project_that_is_up(landed: Path, tmp_path: Path) -> None:
    depot = copied(landed, tmp_path / "depot")
    before = content(depot)
    for plane in ("gateway", "control"):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", getattr(depot, plane)))
            taken.listen()
            said = check_refused(depot.run("up"), exits.CONFLICT, str(getattr(depot, plane)), f"--{plane}")
            assert "in use" in said
        assert not (depot.state / "run.json").exists()
        assert content(depot) == before
    with depot.up() as up:  # nothing stays taken
        check_refused(depot.run("up"), exits.CONFLICT, str(up.process.pid), "already up")
        assert up.ask("GET", "/v2/health/live").status == 200
    assert depot.json("doctor")["well"]


# Disks


def _mount(*arguments: object) -> int:
    return subprocess.run(["mount", *map(str, arguments)], check=False, capture_output=True).returncode


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir()
    if os.geteuid() != 0 or _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder):
        pytest.skip("only root can mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.slow
def test_a_full_disk(landed: Path, tmp_path: Path) -> None:
    big = "parcel,hub,weight,posted_at\n" + "".join(
        f"{hashlib.sha256(str(number).encode()).hexdigest()},{hashlib.md5(str(number).encode()).hexdigest()},1.5,"
        "2024-01-01T00:00:00Z\n"
        for number in range(40_000)
    )
    (tmp_path / "big.csv").write_text(big)
    with small_disk(tmp_path / "disk", "3m"):
        depot = copied(landed, tmp_path / "disk" / "depot")
        before = content(depot)
        check_refused(depot.run("ingest", "posted", tmp_path / "big.csv"), exits.FULL, "No space left")
        tables = {name: digest for name, digest in content(depot).items() if name in before}
        assert tables == before
        with (tmp_path / "disk" / "filler").open("wb", buffering=0) as filler, suppress(OSError):
            while True:
                filler.write(bytes(4096))
        check_refused(depot.run("train", MODEL), exits.FULL, "No space left")
        # With room again the same commands do it.
        assert _mount("-o", "remount,size=200m", tmp_path / "disk") == 0
        assert depot.json("ingest", "posted", tmp_path / "big.csv")["rows"] == 40_000
        assert depot.json("train", MODEL)["version"] == "1"
        findings = depot.run("doctor", "--json").document["findings"]
    assert {each["check"] for each in findings if not each["ok"]} == {"endpoints"}  # nothing was promoted


def small_files(most_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))


@pytest.mark.parametrize("most_bytes", [20_000, 300_000], ids=["for the catalog", "for the rows"])
def test_a_quota(most_bytes: int, landed: Path, tmp_path: Path) -> None:
    """Where files may not grow as on a full disk: what was there stays whole."""
    depot = copied(landed, tmp_path / "depot")
    (depot.root / "more.csv").write_text(
        "hub,backlog,scanned_at\n"
        + "".join(f"north,{number * 0.371237 % 91},2024-01-01T00:00:00Z\n" for number in range(60_000))
    )
    before = content(depot)
    ran = depot.run("ingest", "scans", "more.csv", preexec_fn=partial(small_files, most_bytes))
    check_refused(ran, exits.FULL, "No space left")
    assert {name: digest for name, digest in content(depot).items() if name in before} == before
    assert depot.json("ingest", "scans", "more.csv")["rows"] == 60_000
    assert depot.json("doctor")["well"]


def as_others_are() -> None:
    """Drop what lets root write where nobody may."""
    if os.geteuid() == 0:
        for capability in (1, 2, 3):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER
            ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


@pytest.mark.parametrize(
    "arguments",
    [["apply"], ["ingest", "posted", "more.csv"], ["keys", "create", "a", "--scope", "view"], ["up"]],
    ids=lambda arguments: arguments[0],
)
def test_a_folder_where_nobody_may_write(arguments: list[str], landed: Path, tmp_path: Path) -> None:
    depot = copied(landed, tmp_path / "depot")
    (depot.root / "more.csv").write_text("parcel,hub,weight,posted_at\na,north,1,2024-01-01T00:00:00Z\n")
    (depot.root / "parcels" / "service.py").write_text(SERVICE + "# changed\n")
    before = content(depot)
    paths = [depot.root, *depot.root.rglob("*")]
    modes = {path: path.stat().st_mode for path in paths}
    for path in paths:
        path.chmod(0o500 if path.is_dir() else 0o400)
    try:
        ran = depot.run(*arguments, preexec_fn=as_others_are)
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
    check_refused(ran, exits.DENIED, "writable")
    assert content(depot) == before


def test_a_folder_where_a_project_cannot_begin(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    depot = Depot(tmp_path / "closed")
    check_refused(depot.run("init", "shop", preexec_fn=as_others_are), exits.DENIED)
    assert list((tmp_path / "closed").iterdir()) == []
    shutil.rmtree(tmp_path / "closed")
