"""A prediction by an entity's key: features from SQLite, then a small MLP (10-512-512-1) in ONNX.

A request names a user; ten last values of that user are the model's input. Ours is one gateway with everything on: key
of access, checks, metrics, prediction log. The floors are those of serve.py, and read the same file by SQLite's own
client. The others are what one would put together: `feast serve` for the features (SQLite, materialised from the same
rows), then a model server for the prediction, one after another by the same caller; both have one core together, as
ours has. The client has its own. No side is timed before its answers are the model's.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

import starting
import two_trips
from answering import mlp
from asking import HOST, Server, ask, check, request, values
from environments import PEERS
from mainspring.serving.load.generator import Load, http_request
from networks import onnx_mlp
from report import Case, report
from turns import best, turns_of

if TYPE_CHECKING:
    from mainspring.app.project import Project

USERS = 5_000
FEATURES = tuple(f"f{number}" for number in range(10))
CONNECTIONS = 64
KINDS = ("mlserver", "litserve")
FLOORS = {"floor": "granian", "asyncio and httptools": "httptools"}
MORE = ("per_second",)
EQUAL = 1e-5
CHECKED = 32
FEAST = PEERS / "feast" / "bin"
SERVICE = f"""
import mainspring as ms

user = ms.Entity("user", keys={{"user": ms.String}})
facts = ms.Source(
    "facts", schema={{"user": ms.String, **dict.fromkeys({FEATURES!r}, ms.Float64)}}, event_time="at"
)
asked = ms.Source("asked", schema={{"user": ms.String}}, event_time="asked_at")
Facts = ms.feature_view(entity=user, source=facts)(
    type("Facts", (), {{name: ms.last(name, ttl="30d") for name in {FEATURES!r}}})
)
observations = ms.Observations(asked, keys=[user], at=ms.col("asked_at"))
"""

Wanted = Mapping[str, Sequence[float]]  # user -> the model's answer


@dataclass(frozen=True)
class Measured:
    """What one side did: requests a second by 64 callers, p99 there, p50 of one alone, µs."""

    per_second: float | None = None
    p99_us: float | None = None
    alone_us: float | None = None
    note: str = ""


def facts() -> pa.Table:
    """Return one row a user, of this hour."""
    chance, now = random.Random(7), datetime.now(UTC)
    columns = {name: [round(chance.gauss(0, 1), 4) for _ in range(USERS)] for name in FEATURES}
    at = [now - timedelta(seconds=chance.randrange(60, 3_600)) for _ in range(USERS)]
    return pa.table(
        {
            "user": [f"user-{number:06d}" for number in range(USERS)],
            "at": pa.array(at, pa.timestamp("us", tz="UTC")),
            **columns,
        }
    )


def expected(rows: pa.Table, model: Path) -> dict[str, list[float]]:
    """Return the model's answers by user, for users at random."""
    chosen = rows.take(random.Random(1).sample(range(USERS), 512))
    features = list(zip(*(chosen[name].to_pylist() for name in FEATURES), strict=True))
    return dict(zip(chosen["user"].to_pylist(), mlp(str(model))(features).tolist(), strict=True))


def prepared(folder: Path, rows: Path, model: Path) -> Project:
    """Return a project that has landed the rows, materialised them, and serves the model by keys."""
    from mainspring.app.landing import land
    from mainspring.app.materialising import materialise_views
    from mainspring.serving.model import Arm, Route

    project = starting.project(folder, SERVICE)
    land(project, "facts", str(rows))
    materialise_views(project)
    sealed = bundle(project, model)
    project.bundles.save(sealed)
    route = Route(
        endpoint="keyed", model="keyed", arms=(Arm("1", sealed.digest),), deadline_us=1_000_000, max_queue_rows=4_096
    )
    project.routes.publish([route])
    return project


def bundle(project: Project, model: Path) -> Any:
    """Return the signed bundle of a model of the view's features."""
    import mainspring as ms
    from mainspring.features.definitions import dump
    from mainspring.registry.bundles import FEATURES as DEFINITIONS
    from mainspring.registry.bundles import GOLDEN, MODEL, seal
    from mainspring.registry.model import Input, Manifest

    (view,) = project.definitions.views.values()
    (observations,) = project.definitions.observations
    inputs = tuple(Input(f"Facts.{name}", ms.Float64) for name in FEATURES)
    golden = {"inputs": {each.name: [0.5, -1.25] for each in inputs}, "outputs": {}}
    answers = mlp(str(model))([[value] * len(inputs) for value in (0.5, -1.25)])
    golden["outputs"]["value"] = answers[:, 0].tolist()
    manifest = Manifest(
        model="keyed", task="regression", flavour="onnx", inputs=inputs, outputs=("value",), run_id="bench",
        dataset_commit="", features_digest="", code_version="", created_at=0,
    )  # fmt: skip
    files = {
        MODEL: model.read_bytes(),
        DEFINITIONS: dump([view], observations),
        GOLDEN: json.dumps(golden).encode(),
    }
    return seal(manifest, files, project.signing_key)


def by_key(port: int, users: Sequence[str], headers: Sequence[tuple[str, str]] = ()) -> list[bytes]:
    inputs = {"name": "user", "shape": [1], "datatype": "BYTES"}
    return [
        http_request(
            f"{HOST}:{port}",
            "/v2/models/keyed/infer",
            json.dumps({"inputs": [{**inputs, "data": [user]}]}).encode(),
            headers,
        )
        for user in users
    ]


def measured(many: Load, alone: Load) -> Measured:
    failed = {status: count for status, count in many.statuses.items() if status != 200}
    note = f"of {many.asked} requests {failed} by status failed" if failed else ""
    return Measured(round(many.per_second), many.quantile_us(0.99), alone.quantile_us(0.5), note)


def one_trip(server: Server, wanted: Wanted, seconds: float) -> Measured:
    """Measure a server that reads the features itself."""
    answers = (values("ours", ask(server.port, each)) for each in server.requests[:CHECKED])
    check(answers, list(wanted.values())[:CHECKED], EQUAL)
    return measured(server.load(CONNECTIONS, seconds), server.load(1, seconds))


# Feast and a model server


@contextmanager
def feast(folder: Path, rows: Path) -> Iterator[int]:
    """Run `feast serve` on a store that holds the rows; yield its port."""
    repository = folder / "feast"
    repository.mkdir()
    side = [str(FEAST / "python"), str(starting.HERE / "serve_feast.py"), str(repository), str(rows), *FEATURES]
    made = subprocess.run(side, cwd=repository, capture_output=True, text=True, check=False)
    if made.returncode:
        raise RuntimeError(f"Feast does not materialise: {(made.stderr.strip() or 'it said nothing').splitlines()[-1]}")
    port = starting.free_ports()
    # By default it begins a new process every 1,000 requests, and drops those that wait.
    command = [
        str(FEAST / "feast"), "--chdir", str(repository), "serve", "--port", str(port), "--no-access-log",
        "--max-requests", "0",
    ]  # fmt: skip
    with starting.process(command, port, folder, "feast", FEAST_USAGE="False"):
        yield port


def features_of(port: int, users: Sequence[str]) -> list[bytes]:
    wanted = [f"facts:{name}" for name in FEATURES]
    return [
        http_request(
            f"{HOST}:{port}",
            "/get-online-features",
            json.dumps({"features": wanted, "entities": {"user": [user]}}).encode(),
        )
        for user in users
    ]


def row_of(answer: Any) -> list[float]:
    """Return the features of one user from Feast's answer, in our order."""
    known = dict(zip(answer["metadata"]["feature_names"], answer["results"], strict=True))
    return [known[name]["values"][0] for name in FEATURES]


def two_trip(kind: str, first: int, second: int, wanted: Wanted, seconds: float) -> Measured:
    """Measure `feast serve` at the port `first` with a model server at `second`."""

    def then(answer: Any) -> bytes:
        return request(kind, "mlp", second, row_of(answer))

    asked = features_of(first, list(wanted))
    answers = (values(kind, ask(second, then(ask(first, each)))) for each in asked[:CHECKED])
    check(answers, list(wanted.values())[:CHECKED], EQUAL)

    def load(callers: int) -> Load:
        return two_trips.run(
            (HOST, first), (HOST, second), asked, then, callers=callers, seconds=seconds, warm_up_s=1.0
        )

    return measured(load(CONNECTIONS), load(1))


def measure(seconds: float, rounds: int, *, peers: bool = True) -> list[Case]:
    """Return the cases of all sides."""
    with tempfile.TemporaryDirectory(prefix="serve-keys-") as name:
        folder = Path(name)
        model, path, rows = folder / "mlp.onnx", folder / "facts.parquet", facts()
        onnx_mlp(model, (len(FEATURES), 512, 512, 1))
        pq.write_table(rows, path)
        wanted = expected(rows, model)
        sides: dict[str, Sequence[Measured]] = own(folder, path, model, wanted, seconds, rounds)
        if peers:
            sides |= others(folder, path, model, wanted, seconds)
    return cases({name: best(turns, MORE) for name, turns in sides.items()})


def own(
    folder: Path, path: Path, model: Path, wanted: Wanted, seconds: float, rounds: int
) -> dict[str, Sequence[Measured]]:
    """Return the turns of ours and of the floors, one after another."""
    from mainspring.features.layout import slot

    turns: dict[str, list[Measured]] = {name: [] for name in ("ours", *FLOORS)}
    project = prepared(folder, path, model)
    (view,) = project.definitions.views.values()
    store = (project.settings.online.path, slot(view))
    with starting.gateway(project, folder) as (port, token):
        auth = [("Authorization", f"Bearer {token}")]
        for _ in range(rounds):
            turns["ours"].append(one_trip(Server(port, by_key(port, list(wanted), auth)), wanted, seconds))
            for name, kind in FLOORS.items():
                with starting.floor(kind, folder, str(model), *map(str, store)) as other:
                    turns[name].append(one_trip(Server(other, by_key(other, list(wanted))), wanted, seconds))
            print(f"by keys: { {name: each[-1] for name, each in turns.items()} }", file=sys.stderr, flush=True)
    return dict(turns)


def others(folder: Path, path: Path, model: Path, wanted: Wanted, seconds: float) -> dict[str, Sequence[Measured]]:
    """Return what `feast serve` does with each model server behind it."""

    def failed(why: str) -> dict[str, Sequence[Measured]]:
        return {f"feast and {kind}": [Measured(note=why)] for kind in KINDS}

    if why := starting.missing("feast"):
        return failed(why)
    try:
        with feast(folder, path) as first:

            def measure_with(kind: str) -> list[Measured]:
                with starting.peer(kind, folder, model) as second:
                    return [two_trip(kind, first, second, wanted, seconds)]

            found = turns_of(KINDS, measure_with, Measured)
    except (RuntimeError, OSError) as error:
        return failed(f"`feast serve` did not answer: {error}")
    return {f"feast and {kind}": turns for kind, turns in found.items()}


def cases(sides: Mapping[str, Measured]) -> list[Case]:
    mine = sides["ours"]
    peers = {name: each for name, each in sides.items() if name not in ("ours", *FLOORS)}
    notes = {name: each.note for name, each in sides.items() if each.note}
    found = []
    for case, unit, figure in (
        ("by an entity's key, 64 connections", "requests/s", "per_second"),
        ("the same by key, p99", "µs", "p99_us"),
        ("by an entity's key, one connection, p50", "µs", "alone_us"),
    ):
        others_ = {name: getattr(each, figure) for name, each in peers.items()}
        more = figure in MORE
        found.append(Case(case, unit, getattr(mine, figure), getattr(sides["floor"], figure), others_, notes, more))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each load is kept up")
    parser.add_argument("--rounds", type=int, default=2, help="turns of ours and the floor; the others have one")
    parser.add_argument("--no-peers", action="store_true")
    arguments = parser.parse_args()
    report("serve_keys", measure(arguments.seconds, arguments.rounds, peers=not arguments.no_peers))


if __name__ == "__main__":
    main()
