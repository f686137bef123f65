"""Bad input of trainings and versions: what the command says, that nothing is left half done, and that what is served
goes on being served."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from e2e.test_bad_input import _mount, check_refused, small_disk
from kit.depot import ENDPOINT, MODEL, MODEL_PY, Depot, Up, copied, keyed, opened
from kit.depth import deep
from kit.object_store import ENVIRONMENT, new_bucket
from kit.servers import PASSWORD, PostgresServer, running
from kit.waiting import wait_until
from mainspring.cli import exits

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # each command is a process

HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""
WAITS = """
import time
open("reached", "w").close()
while not os.path.exists("go"):
    time.sleep(0.05)
run.log_metric("loss", 0.1)
run.flush()
"""


def teach(depot: Depot, lines: str) -> None:
    """Let the training function begin with these lines."""
    assert "    trees =" in MODEL_PY
    own = "".join(f"    {line}\n" for line in lines.strip().splitlines())
    text = "import os, resource, signal, sys\n" + MODEL_PY.replace("    trees =", f"{own}    trees =")
    (depot.root / "parcels" / "model.py").write_text(text)


def check_whole(depot: Depot, *ended: str) -> None:
    """Behind the two runs of the two versions, runs ended so; version 1 is served; the next training works."""
    assert [run["status"] for run in depot.json("runs", MODEL)] == [*ended, "FINISHED", "FINISHED"]
    project = opened(depot)
    assert [version.version for version in project.versions.all(MODEL)] == ["2", "1"]
    kept = {version.digest for version in project.versions.all(MODEL)}
    assert {path.name for path in (depot.state / "bundles").glob("[!.]*")} == kept
    assert depot.json("status")["endpoints"][0]["versions"] == {"1": 1.0}
    (depot.root / "parcels" / "model.py").write_text(MODEL_PY)
    assert depot.json("train", MODEL)["version"] == "3"
    assert depot.json("doctor")["well"]


# What the training function does

FAULTS: dict[str, tuple[str, int, list[str]]] = {
    "nothing returned": ("return None", exits.USAGE, ["returned nothing", "model.py:"]),
    "a loss that is NaN": ('run.log_metric("loss", float("nan"), 3)', exits.USAGE, ["'loss' at step 3 is nan"]),
    "a badly named metric": ('run.log_metric("loss%", 0.1)', exits.USAGE, ["'loss%' cannot name a metric", "'loss_'"]),
    "out of memory": ("raise MemoryError", exits.INTERNAL, ["ran out of memory", "630 rows", "--since"]),
    "a converter that is missing": (
        'sys.modules["skl2onnx"] = None',
        exits.MISSING_EXTRA,
        ["'sklearn'", "pip install 'mainspring[sklearn]'"],
    ),
    "no room for a file": (
        'resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000,) * 2)\nrun.log_artefact("big.bin", bytes(3_000_000))',
        exits.FULL,
        ["No space left for", "big.bin"],
    ),
}


def test_a_training_that_fails_says_why_and_leaves_a_failed_run(depot: Depot) -> None:
    for number, (lines, code, words) in enumerate(FAULTS.values(), start=1):
        teach(depot, lines)
        check_refused(depot.run("train", MODEL), code, *words)
        assert not [path for path in (depot.state / "artefacts").rglob("*") if path.name.startswith(".")]
        assert [run["status"] for run in depot.json("runs", MODEL)] == ["FAILED"] * number + ["FINISHED"] * 2
    check_whole(depot, *["FAILED"] * len(FAULTS))


def test_a_training_that_the_kernel_kills_is_marked_by_the_next_command(depot: Depot) -> None:
    """As it does where the memory of all processes is used up: the process says nothing any more."""
    teach(
        depot,
        "with run.nested('fold') as fold:\n"
        "    fold.log_metric('loss', 0.5)\n"
        "    fold.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)",
    )
    assert depot.run("train", MODEL).code == -signal.SIGKILL
    killed = depot.json("runs", MODEL)[:2]
    assert [run["metrics"] for run in killed if "loss" in run["metrics"]] == [{"loss": 0.5}]  # what was flushed stays
    assert all(run["ended_at"] for run in killed)
    check_whole(depot, "KILLED", "KILLED")


# A database that is locked


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Another process writes to the database and does not end."""
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        try:
            yield
        finally:
            holder.stdin.close()


def check_served(up: Up) -> None:
    """Version 1 answers, and its answer is logged."""
    answer = up.ask("POST", f"/v2/models/{ENDPOINT}/infer", keyed("p1"), key=up.document["admin_key"])
    assert (answer.status, answer.body["model_version"]) == (200, "1"), answer


def test_a_database_that_stays_locked_ends_commands_and_not_the_serving(depot: Depot, tmp_path: Path) -> None:
    """Each command waits for the database's patience: all wait at once."""
    depots = {"tracking.db": depot, "catalog.db": copied(depot.root, tmp_path / "another")}
    with ThreadPoolExecutor() as pool:
        for each in [pool.submit(check_locked, made, name) for name, made in depots.items()]:
            each.result()


def check_locked(depot: Depot, name: str) -> None:
    with depot.up() as up:
        up.until_serving()
        with held(depot.state / name):
            with ThreadPoolExecutor() as pool:
                commands = (("train", MODEL), ("promote", MODEL, "2"))
                ended = list(pool.map(lambda arguments: depot.run(*arguments, timeout_s=400), commands))
            train, promote = (
                check_refused(ran, exits.UNAVAILABLE, "is locked by another process", "fuser") for ran in ended
            )
            assert name in promote
            assert name in train or "catalog.db" in train  # which the promotion holds while it waits for the runs
            assert depot.json("status")["endpoints"][0]["versions"] == {"1": 1.0}
            check_served(up)
    # With the catalog locked all was trained, and registering it was refused.
    runs = [run["status"] for run in depot.json("runs", MODEL)]
    assert "RUNNING" not in runs
    assert [version["version"] for version in depot.json("models", "list", MODEL)] == ["2", "1"]
    assert depot.json("train", MODEL)["version"] == "3"
    told = depot.run("doctor", "--json").document["findings"]
    # A pass of the monitor may have met the lock, and nothing runs that would begin another.
    assert [
        each for each in told if not each["ok"] and not (each["check"] == "monitor" and name in each["detail"])
    ] == []


@deep
@deep  # each word to the store waits for MLflow's patience, one after another
def test_runs_locked_in_the_middle_of_a_training(depot: Depot) -> None:
    teach(depot, WAITS)
    with depot.begun("train", MODEL) as begun:
        wait_until((depot.root / "reached").exists, "the training function")
        with held(depot.state / "tracking.db"):
            (depot.root / "go").touch()
            ran = begun.end()
    said = ran.stderr
    assert ran.code == exits.UNAVAILABLE
    assert "tracking.db is locked by another process" in said
    assert "Fix: " in said
    check_whole(depot, "KILLED")


# A database that is gone


def test_runs_deleted_in_the_middle_of_a_training_are_not_begun_anew_beside_their_log(depot: Depot) -> None:
    database = depot.state / "tracking.db"
    with sqlite3.connect(database) as whole, sqlite3.connect(depot.root / "backup") as backup:
        whole.backup(backup)  # what is in the log beside the file, too
    teach(depot, f"os.unlink({str(database)!r})\nrun.log_metric('loss', 0.1)\nrun.flush()")
    check_refused(depot.run("train", MODEL), exits.UNAVAILABLE, "tracking.db is missing", "backup")
    (depot.root / "parcels" / "model.py").write_text(MODEL_PY)
    for arguments in (("train", MODEL), ("runs", MODEL), ("models", "list"), ("promote", MODEL)):
        check_refused(depot.run(*arguments), exits.UNAVAILABLE, "tracking.db is missing", "tracking.db-wal", "backup")
    assert not database.exists()
    for log in depot.state.glob("tracking.db-*"):
        log.unlink()
    shutil.copy(depot.root / "backup", database)
    check_whole(depot)


@deep
def test_postgres_stops_in_the_middle_of_a_training(depot: Depot) -> None:
    teach(depot, WAITS)
    with running(PostgresServer) as server:
        database = server.fresh().text
        shared = {"MAINSPRING_CATALOG": database, "MAINSPRING_TRACKING": database}
        with depot.begun("train", MODEL, environment=shared) as begun:
            wait_until((depot.root / "reached").exists, "the training function")
            server.stop()
            (depot.root / "go").touch()
            ran = begun.end()
        said = ran.stderr
        assert ran.code == exits.UNAVAILABLE, said
        assert "Traceback" not in said
        assert "did not respond" in said
        assert "  Fix: run the command again" in said
        assert PASSWORD not in said
        server.start()
        (depot.root / "parcels" / "model.py").write_text(MODEL_PY)
        trained = depot.run("train", MODEL, "--json", environment=shared)
        assert trained.document["version"] == "1", trained
        runs = depot.run("runs", MODEL, "--json", environment=shared).document
        assert [run["status"] for run in runs] == ["FINISHED", "KILLED"]


# Bundles


@deep
def test_a_bucket_that_goes_away_before_the_bundle_is_stored(depot: Depot, s3_server: str) -> None:
    place = new_bucket(s3_server)
    bucket = f"{s3_server}/{place.text.partition('//')[2].partition('/')[0]}"
    environment = {**ENVIRONMENT, "MAINSPRING_BLOBS": place.text}
    teach(
        depot,
        "import contextlib, urllib.request\n"
        f"asked = urllib.request.Request({bucket!r}, method='DELETE')\n"
        "with contextlib.suppress(OSError):  # the baseline is trained by it too\n"
        "    urllib.request.urlopen(asked).close()",
    )
    check_refused(depot.run("train", MODEL, environment=environment), exits.NOT_FOUND, "no bucket at s3://")
    with urllib.request.urlopen(urllib.request.Request(bucket, data=b"", method="PUT"), timeout=30):
        check_whole(depot, "FAILED")


def test_a_disk_that_is_full_when_the_bundle_is_stored(depot: Depot, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "16k"):
        environment = {"MAINSPRING_BLOBS": f"file://{tmp_path / 'disk' / 'bundles'}"}
        ran = depot.run("train", MODEL, environment=environment)
        check_refused(ran, exits.FULL, "No space left for", "bundles")
        assert list((tmp_path / "disk" / "bundles").glob("[!.]*")) == []
        assert _mount("-o", "remount,size=50m", tmp_path / "disk") == 0
        again = depot.run("train", MODEL, "--json", environment=environment)
        assert again.document["version"] == "3", again
        assert [path.name for path in (tmp_path / "disk" / "bundles").glob("[!.]*")] == [again.document["digest"]]
    assert [run["status"] for run in depot.json("runs", MODEL)] == ["FINISHED", "FAILED", "FINISHED", "FINISHED"]


def test_a_damaged_version_is_not_promoted_and_the_one_before_goes_on(depot: Depot) -> None:
    digest = opened(depot).versions.get(MODEL, "2").digest
    model, same = depot.state / "bundles" / digest / "model.onnx", depot.root / "same.onnx"
    content = bytearray(model.read_bytes())
    same.write_bytes(content)
    content[len(content) // 2] ^= 1
    model.unlink()
    with depot.up() as up:
        up.until_serving()
        for damage in (lambda: model.write_bytes(content), lambda: model.symlink_to(same)):
            damage()
            check_refused(depot.run("promote", MODEL, "2"), exits.CORRUPT, "model.onnx")
            check_served(up)
            assert depot.json("status")["endpoints"][0]["versions"] == {"1": 1.0}
            assert depot.run("doctor").code == exits.UNHEALTHY
            model.unlink()
        same.rename(model)
        assert depot.json("promote", MODEL, "2")["promoted"]
