"""Make `0.1.0.tar.xz`: a project that version 0.1.0 ingested, trained, promoted and served.

`python tests/dumps/make_0_1_0.py`, in a clone with its history. It has two versions of a model, a tagged dataset
commit, a quarantine, predictions in the lake, and predictions in a segment whose writer was killed.
"""

from __future__ import annotations

import csv
import io
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

COMMIT = "8625f5b1"  # the changelog names 0.1.0 in it
HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FILES = {
    "mainspring.toml": """\
name = "depot"
modules = ["parcels.features", "parcels.model", "parcels.service"]

[profiles.local]
monitor_window = "1h"
materialise_every = "5s"
""",
    "parcels/__init__.py": "",
    "parcels/features.py": '''\
"""Entities, sources and features."""

import mainspring as ms

parcel = ms.Entity("parcel", keys={"parcel": ms.String})
hub = ms.Entity("hub", keys={"hub": ms.String})

posted = ms.Source(
    "posted",
    schema={"parcel": ms.String, "hub": ms.String, "weight": ms.Float32},
    event_time="posted_at",
    checks=[ms.not_null("parcel", "hub"), ms.unique("parcel"), ms.in_range("weight", 0, 100)],
)
scans = ms.Source("scans", schema={"hub": ms.String, "backlog": ms.Float32}, event_time="scanned_at")
deliveries = ms.Source("deliveries", schema={"parcel": ms.String, "late": ms.Boolean}, event_time="delivered_at")


@ms.feature_view(entity=hub, source=scans)
class HubLoad:
    scans_3h = ms.count(window="3h")
    mean_backlog_3h = ms.mean("backlog", window="3h")
    backlog = ms.last("backlog")


@ms.request_features
class Parcel:
    weight = ms.col("weight")


observations = ms.Observations(posted, keys=[parcel, hub], at=ms.col("posted_at"))
''',
    "parcels/model.py": '''\
"""Will the parcel come late?"""

import mainspring as ms
from parcels.features import HubLoad, Parcel, deliveries, observations


@ms.model(
    "late-parcel",
    observations=observations,
    features=[HubLoad, Parcel],
    baseline=[Parcel],
    label=deliveries.late,
    task="binary",
    gates=[ms.beats("auc", by=0.01)],
)
def train(data: ms.TrainingSet, run: ms.Run):
    from sklearn.ensemble import HistGradientBoostingClassifier

    trees = HistGradientBoostingClassifier(max_iter=10, max_leaf_nodes=8, random_state=run.seed)
    return trees.fit(data.train.X, data.train.y)
''',
    "parcels/service.py": '''\
"""Where predictions are asked for."""

import mainspring as ms

ms.Endpoint("late-parcel", model="late-parcel@champion", deadline="30s")
''',
}
_LEFT_OUT = {"logs", "locks", ".locks", "__pycache__", "run.json", "tmp"}
_PARCELS = 300
_LAST = datetime(2026, 11, 25, tzinfo=UTC)


class Project:
    """A project in a folder, driven by the code of an earlier version."""

    def __init__(self, root: Path, source: Path) -> None:
        self.root = root
        self._ports = free_port(), free_port()
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MAINSPRING_")}
        self._environment = kept | {
            "PYTHONPATH": str(source),
            "OMP_NUM_THREADS": "1",
            "MAINSPRING_GATEWAY": f"127.0.0.1:{self._ports[0]}",
            "MAINSPRING_CONTROL": f"127.0.0.1:{self._ports[1]}",
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "mainspring", *arguments, "--json"]
        return subprocess.Popen(
            command, cwd=self.root, env=self._environment, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def run(self, *arguments: str) -> Any:
        with self.start(*arguments) as process:
            told, _ = process.communicate(timeout=300)
        if process.returncode:
            sys.exit(f"mainspring {' '.join(arguments)} exits {process.returncode}")
        return json.loads(told)

    def ask(self, body: Any, key: str) -> dict[str, Any]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._ports[0]}/v2/models/late-parcel/infer",
            json.dumps(body).encode(), {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=30) as reply:
            answer: dict[str, Any] = json.load(reply)
            return answer

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._ports[0]}/v2/health/ready", timeout=5):
                return True
        except OSError:
            return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def main() -> None:
    """Make the dump of this script's version."""
    with tempfile.TemporaryDirectory() as folder:
        source, root = Path(folder, "source"), Path(folder, "depot")
        archive = subprocess.run(["git", "archive", COMMIT, "src"], cwd=ROOT, capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(source, filter="data")
        lay_out(root)
        lead(Project(root, source / "src"))
        pack(root, HERE / "0.1.0.tar.xz")


def lay_out(root: Path) -> None:
    for name, content in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    for source, rows in rows_of(random.Random(11)).items():
        with (root / f"{source}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)


def rows_of(chance: random.Random) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = {"posted": [], "scans": [], "deliveries": []}
    backlog = {"north": 20.0, "south": 60.0}
    for number in range(_PARCELS):
        at = _LAST - timedelta(minutes=10 * (_PARCELS - number))
        for hub, value in backlog.items():
            backlog[hub] = min(100.0, max(0.0, value + chance.gauss(0, 15)))
            scanned = (at - timedelta(minutes=chance.randrange(1, 10))).isoformat()
            rows["scans"].append({"hub": hub, "backlog": round(backlog[hub], 2), "scanned_at": scanned})
        hub, weight = chance.choice(["north", "south"]), round(chance.uniform(0.1, 10), 2)
        late = chance.random() < (0.05 + 0.008 * backlog[hub] + 0.01 * weight)
        name = {"parcel": f"p{number}"}
        rows["posted"].append({**name, "hub": hub, "weight": weight, "posted_at": at.isoformat()})
        arrived = (at + timedelta(hours=2)).isoformat()
        rows["deliveries"].append({**name, "late": str(late).lower(), "delivered_at": arrived})
    rows["posted"].append({"parcel": "heavy", "hub": "north", "weight": 1000, "posted_at": _LAST.isoformat()})
    return rows


def lead(project: Project) -> None:
    """Take a project through what the version could do, and note what its endpoint answered."""
    project.run("apply")
    for source in ("posted", "scans", "deliveries"):
        project.run("ingest", source, f"{source}.csv")
        (project.root / f"{source}.csv").unlink()
    project.run("train", "late-parcel")
    project.run("promote", "late-parcel")
    project.run("train", "late-parcel")
    commit = project.run("data", "log")["commits"][0]["id"]
    project.run("data", "tag", "first", commit)
    project.run("materialize")
    key = project.run("keys", "create", "asks", "--scope", "predict", "--expires", "3650d")["key"]
    answers = serve(project, key, [whole(1.0, 10.0), whole(9.0, 95.0), keyed("new0"), keyed("new1")])
    project.run("monitor", "late-parcel")
    answers += serve(project, key, [whole(5.0, None), keyed("new2")], kill=True)
    (project.root / "answers.json").write_text(json.dumps({"key": key, "answers": answers}, indent=2))


def whole(weight: float, backlog: float | None) -> dict[str, Any]:
    values = {
        "HubLoad.scans_3h": ("INT64", 18), "HubLoad.mean_backlog_3h": ("FP32", backlog),
        "HubLoad.backlog": ("FP32", backlog), "Parcel.weight": ("FP32", weight),
    }  # fmt: skip
    return {"inputs": [_input(name, kind, value) for name, (kind, value) in values.items()]}


def keyed(parcel: str) -> dict[str, Any]:
    values = {
        "parcel": ("BYTES", parcel), "hub": ("BYTES", "south"), "weight": ("FP32", 3.0),
        "posted_at": ("BYTES", _LAST.isoformat()),
    }  # fmt: skip
    return {"inputs": [_input(name, kind, value) for name, (kind, value) in values.items()]}


def _input(name: str, kind: str, value: object) -> dict[str, Any]:
    return {"name": name, "shape": [1], "datatype": kind, "data": [value]}


def serve(project: Project, key: str, bodies: Sequence[Any], *, kill: bool = False) -> list[dict[str, Any]]:
    """Return the requests with their answers.

    Args:
        kill: Whether all processes are killed, so that the log is as it was then.
    """
    process = project.start("up")
    deadline = time.monotonic() + 60
    while not project.ready() and time.monotonic() < deadline:
        time.sleep(0.1)
    answers = [{"body": body, "answer": project.ask(body, key)} for body in bodies]
    if kill:
        time.sleep(0.2)  # the log survives a kill some milliseconds after the answer
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    return answers


def pack(root: Path, to: Path) -> None:
    """Write a folder as an archive whose bytes depend on its files alone."""
    for path in root.rglob("*.db"):
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.rmtree(root / ".mainspring" / "logs", ignore_errors=True)
    with tarfile.open(to, "w:xz", preset=9) as tar:
        for path in sorted(root.rglob("*")):
            name = path.relative_to(root)
            if (
                path.is_file()
                and not _LEFT_OUT & {*name.parts}
                and not path.name.endswith((".lock", ".sock", "-shm", "-wal"))
            ):
                member = tarfile.TarInfo(str(name))
                member.size, member.mode = path.stat().st_size, 0o600
                with path.open("rb") as file:
                    tar.addfile(member, file)
    print(f"{to}: {to.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
