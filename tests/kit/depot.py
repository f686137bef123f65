"""A small project in a folder of its own, driven by the real command line: parcels, of which some come late.

A parcel is predicted when it is posted; whether it came late is known two hours later. What decides it is its weight
and how full its hub has been. Everything is written by the machine's clock, up to now, as a project's life is.
"""

from __future__ import annotations

import csv
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

from kit import documents, prefork
from kit.waiting import free_port, wait_until
from mainspring.ledger.model import PREDICTIONS
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings

ENDPOINT = MODEL = "late-parcel"
PARCELS = 900
TOML = """\
name = "depot"
modules = ["parcels.features", "parcels.model", "parcels.service"]

[targets.here]
kind = "systemd"

[profiles.local]
monitor_window = "1h"
materialise_every = "5s"
"""
FEATURES = '''\
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
    backlog = ms.last("backlog", ttl="6h")


@ms.request_features
class Parcel:
    weight = ms.col("weight")


observations = ms.Observations(posted, keys=[parcel, hub], at=ms.col("posted_at"))
'''
MODEL_PY = '''\
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
'''
SERVICE = '''\
"""Where predictions are asked for."""

import mainspring as ms

ms.Endpoint("late-parcel", model="late-parcel@champion", deadline="30s", log=ms.Log(sync=True))
'''


@dataclass(frozen=True)
class Ran:
    """How one command ended."""

    code: int
    stdout: str
    stderr: str
    words: Sequence[str] = ()  # of the command, if they are known

    @property
    def document(self) -> Any:
        """What it printed with `--json`: exactly one document and nothing else, as the documentation describes it."""
        document = json.loads(self.stdout)
        if self.words:
            documents.check(self.words, document)
        return document


@dataclass
class Depot:
    """A project's folder and the two ports that are its own."""

    root: Path
    gateway: int = field(default_factory=free_port)
    control: int = field(default_factory=free_port)

    @property
    def state(self) -> Path:
        return self.root / ".mainspring"

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MAINSPRING_")}
        return kept | {
            "MAINSPRING_GATEWAY": f"127.0.0.1:{self.gateway}",
            "MAINSPRING_CONTROL": f"127.0.0.1:{self.control}",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
        }

    def command(self, *arguments: object) -> list[str]:
        return [sys.executable, "-m", "mainspring", *map(str, arguments)]

    def start(
        self,
        *arguments: object,
        environment: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        **options: Any,
    ) -> Any:
        """Start a command in the project's folder, by the program `prefix` if there is one; return its process."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": self.root, **options}
        command = [*prefix, *self.command(*arguments)]
        return subprocess.Popen(command, env=self.environment | dict(environment or {}), **options)

    def run(
        self,
        *arguments: object,
        environment: Mapping[str, str] | None = None,
        timeout_s: float = 120.0,
        **options: Any,
    ) -> Ran:
        """Run a command to its end, forked where that is the same (`prefork`)."""
        whole = self.environment | dict(environment or {})
        if not options and prefork.suits(whole):
            given = [str(each) for each in arguments]
            return Ran(*prefork.run(given, cwd=self.root, environment=whole, timeout_s=timeout_s), given)
        with self.start(*arguments, environment=environment, **options) as process:
            try:
                stdout, stderr = process.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return Ran(process.returncode, stdout or "", stderr or "", [str(each) for each in arguments])

    @contextmanager
    def begun(
        self, *arguments: object, environment: Mapping[str, str] | None = None, real: bool = False
    ) -> Iterator[Begun]:
        """Start a command, forked where that is the same (`prefork`) unless `real`; at the block's end it is killed."""
        given, whole = [str(each) for each in arguments], self.environment | dict(environment or {})
        with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            if not real and prefork.suits(whole):
                made = prefork.Command(given, cwd=self.root, environment=whole, stdout=stdout, stderr=stderr)
                with closing(made) as forked:
                    yield Begun(forked, stdout, stderr)
                return
            with self.start(*arguments, environment=environment, stdout=stdout, stderr=stderr) as process:
                try:
                    yield Begun(process, stdout, stderr)
                finally:
                    process.kill()

    def json(self, *arguments: object) -> Any:
        """Run a command that must succeed, with `--json`, and return its document."""
        ran = self.run(*arguments, "--json")
        assert ran.code == 0, (arguments, ran)
        return ran.document

    def ingest_all(self) -> None:
        for source in ("posted", "scans", "deliveries"):
            self.json("ingest", source, f"{source}.csv")

    @contextmanager
    def up(self, *arguments: object, environment: Mapping[str, str] | None = None, real: bool = False) -> Iterator[Up]:
        """Keep the project up inside the block; SIGTERM at its end.

        Args:
            real: Each process is an interpreter of its own, for tests that kill them.
        """
        with self.begun("up", "--json", *arguments, environment=environment, real=real) as begun:
            try:
                yield Up(self, begun.process, begun.document())
            finally:
                if not begun.ended:
                    begun.process.send_signal(signal.SIGTERM)
                begun.process.wait(90)


@dataclass(frozen=True)
class Begun:
    """A command that goes on, and the files that it writes to."""

    process: Any  # a `Popen` or a `prefork.Command`
    _stdout: IO[bytes]
    _stderr: IO[bytes]

    @property
    def told(self) -> str:
        """What it wrote to stderr so far."""
        return prefork.written(self._stderr)

    def document(self) -> Any:
        """Wait for the JSON document that `up` prints before it goes on running."""
        wait_until(lambda: self.ended or prefork.written(self._stdout).endswith("\n}\n"), "`up` to say what is up")
        said = prefork.written(self._stdout)
        assert said.endswith("\n}\n"), f"`up` ended: {self.told}"
        document = json.loads(said)
        documents.check(["up"], document)
        return document

    def end(self, within_s: float = 300.0) -> Ran:
        """Wait for its end, and return how it ended."""
        code = self.process.wait(within_s)
        return Ran(code, prefork.written(self._stdout), self.told)

    @property
    def ended(self) -> bool:
        """Whether it goes on no more."""
        return self.process.poll() is not None

    def killed_after(self, moment_s: float) -> bool:
        """Kill it unless it ends within so long; return whether it was killed."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(moment_s)
        self.process.kill()
        return bool(self.process.wait(60) == -signal.SIGKILL)


@dataclass
class Up:
    """A project that is up, and what `up` said."""

    depot: Depot
    process: Any
    document: Any

    @property
    def running(self) -> Any:
        """What the state folder says of its processes."""
        return json.loads((self.depot.state / "run.json").read_bytes())

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        key: str | None = None,
        plane: str = "gateway",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        return ask(getattr(self.depot, plane), method, path, body, key=key, headers=headers)

    def until_serving(self) -> None:
        """Wait until the gateway serves what is routed."""
        wait_until(lambda: self.ask("GET", "/v2/health/ready").status == 200, "the gateway to serve")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def body(self) -> Any:
        return json.loads(self.text)


def ask(
    port: int,
    method: str,
    path: str,
    body: object = None,
    *,
    key: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Send one request over a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    sent = {"Authorization": f"Bearer {key}"} if key is not None else {}
    try:
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, sent | dict(headers or {}))
        reply = connection.getresponse()
        return Answer(reply.status, dict(reply.getheaders()), reply.read().decode())
    finally:
        connection.close()


def inputs(**columns: Any) -> dict[str, Any]:
    """Return a request of one row: text as BYTES, numbers as FP32."""
    return {
        "inputs": [
            {"name": name, "shape": [1], "datatype": "BYTES" if isinstance(value, str) else "FP32", "data": [value]}
            for name, value in columns.items()
        ]
    }


def keyed(parcel: str, weight: float = 3.0, hub: str = "north") -> dict[str, Any]:
    return inputs(parcel=parcel, hub=hub, weight=weight, posted_at=datetime.now(UTC).isoformat())


@contextmanager
def half_sent(port: int, path: str, body: bytes, authorization: str) -> Iterator[tuple[socket.socket, bytes]]:
    """A connection on which a request waits for the second half of its body, and that half.

    The process has asked for the body (RFC 9110, 10.1.1): the request is in flight.
    """
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: {authorization}\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=90) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n".encode())
        answer = connection.recv(4096)
        assert answer == b"HTTP/1.1 100 Continue\r\n\r\n", answer
        half = len(body) // 2
        connection.sendall(body[:half])
        yield connection, body[half:]


def refuses(port: int) -> bool:
    """Whether nobody listens on a port of 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=90).close()
    except ConnectionRefusedError:
        return True
    return False


def gone(pid: int) -> bool:
    """Whether no process with this id runs; one that nobody waited for does not run."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def lay_out(root: Path) -> Depot:
    """Write the project and its data into the folder `root`."""
    package = root / "parcels"
    package.mkdir(parents=True)
    (root / "mainspring.toml").write_text(TOML)
    for name, content in (("__init__", ""), ("features", FEATURES), ("model", MODEL_PY), ("service", SERVICE)):
        (package / f"{name}.py").write_text(content)
    for source, rows in _rows(random.Random(11), datetime.now(UTC).replace(microsecond=0)).items():
        with (root / f"{source}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
    return Depot(root)


def _rows(chance: random.Random, now: datetime) -> dict[str, list[dict[str, Any]]]:
    """Return each source's rows: a parcel every ten minutes up to three hours ago, a scan of each hub as often."""
    rows: dict[str, list[dict[str, Any]]] = {"posted": [], "scans": [], "deliveries": []}
    backlog = {"north": 20.0, "south": 60.0}
    for number in range(PARCELS):
        at = now - timedelta(hours=3, minutes=10 * (PARCELS - number))
        for hub, value in backlog.items():
            backlog[hub] = min(100.0, max(0.0, value + chance.gauss(0, 15)))
            scanned = (at - timedelta(minutes=chance.randrange(1, 10))).isoformat()
            rows["scans"].append({"hub": hub, "backlog": round(backlog[hub], 2), "scanned_at": scanned})
        hub = chance.choice(["north", "south"])
        weight = round(chance.uniform(0.1, 10), 2)
        late = chance.random() < (0.05 + 0.008 * backlog[hub] + 0.01 * weight)
        parcel = f"p{number}"
        rows["posted"].append({"parcel": parcel, "hub": hub, "weight": weight, "posted_at": at.isoformat()})
        arrived = (at + timedelta(hours=2)).isoformat()
        rows["deliveries"].append({"parcel": parcel, "late": str(late).lower(), "delivered_at": arrived})
    return rows


def opened(depot: Depot) -> Project:
    """Return the project, opened in this process to look at what its commands left."""
    return open_project(load_settings(depot.root, environment={}))


def logged(project: Project) -> set[str]:
    """Return the ids of the predictions in the lake."""
    import pyarrow.parquet as pq

    files = project.lake.scan(PREDICTIONS).files
    return {each for file in files for each in pq.read_table(file, columns=["id"])["id"].to_pylist()}


def copied(template: Path, root: Path) -> Depot:
    """Return a project of its own that is where `template` is.

    A process that has just ended may still put a database's log into it: then the copy is made anew.
    """

    def copy() -> bool:
        try:
            shutil.copytree(template, root, ignore=shutil.ignore_patterns("*.sock"))
        except shutil.Error:
            shutil.rmtree(root)
            return False
        return True

    wait_until(copy, "a copy of the project, of which no file goes away")
    return Depot(root)
