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
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

import keyed
import starting
import two_trips
from asking import HOST, Server, ask, check, request, values
from environments import PEERS
from figures import FLOORS, Measured, cases, timed
from keyed import FEATURES, Wanted
from mainspring.serving.load.generator import Load, http_request
from networks import onnx_mlp
from report import Case, report
from turns import turns_of

KINDS = ("mlserver", "litserve")
EQUAL = 1e-5
CHECKED = 32
FEAST = PEERS / "feast" / "bin"


def measure(seconds: float, rounds: int, *, peers: bool = True) -> list[Case]:
    """Return the cases of all sides."""
    with tempfile.TemporaryDirectory(prefix="serve-keys-") as name:
        folder = Path(name)
        model, path, rows = folder / "mlp.onnx", folder / "facts.parquet", keyed.facts()
        onnx_mlp(model, (len(FEATURES), 512, 512, 1))
        pq.write_table(rows, path)
        wanted = keyed.expected(rows, model)
        sides: dict[str, Sequence[Measured]] = own(folder, path, model, wanted, seconds, rounds)
        if peers:
            sides |= others(folder, path, model, wanted, seconds)
    return cases("by an entity's key", sides)


def own(
    folder: Path, path: Path, model: Path, wanted: Wanted, seconds: float, rounds: int
) -> dict[str, Sequence[Measured]]:
    """Return the turns of ours and of the floors, one after another."""
    turns: dict[str, list[Measured]] = {name: [] for name in ("ours", *FLOORS)}
    project = keyed.prepared(folder, path, model)
    with starting.gateway(project, folder) as (port, token):
        mine = Server(port, keyed.requests(port, list(wanted), [("Authorization", f"Bearer {token}")]))
        for _ in range(rounds):
            turns["ours"].append(one_trip(mine, wanted, seconds))
            for name, kind in FLOORS.items():
                with starting.floor(kind, folder, str(model), *keyed.store(project)) as other:
                    turns[name].append(one_trip(Server(other, keyed.requests(other, list(wanted))), wanted, seconds))
            print(f"by key: { {name: each[-1] for name, each in turns.items()} }", file=sys.stderr, flush=True)
    return dict(turns)


def one_trip(server: Server, wanted: Wanted, seconds: float) -> Measured:
    """Measure a server that reads the features itself."""
    answers = (values("ours", ask(server.port, each)) for each in server.requests[:CHECKED])
    check(answers, list(wanted.values())[:CHECKED], EQUAL)
    return timed(server.load, seconds)


# Feast and a model server


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
    options = ["--port", str(port), "--no-access-log", "--max-requests", "0"]
    command = [str(FEAST / "feast"), "--chdir", str(repository), "serve", *options]
    with starting.process(command, port, folder, "feast", FEAST_USAGE="False"):
        yield port


def features_of(port: int, users: Sequence[str]) -> list[bytes]:
    """Return what Feast is asked for each user's features."""
    wanted = [f"facts:{name}" for name in FEATURES]

    def body(user: str) -> bytes:
        return json.dumps({"features": wanted, "entities": {"user": [user]}}).encode()

    return [http_request(f"{HOST}:{port}", "/get-online-features", body(user)) for user in users]


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
    addresses = ((HOST, first), (HOST, second))

    def load(callers: int, for_s: float) -> Load:
        return two_trips.run(*addresses, asked, then, callers=callers, seconds=for_s)

    return timed(load, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each load is kept up")
    parser.add_argument("--rounds", type=int, default=2, help="turns of ours and the floors; the others have one")
    parser.add_argument("--no-peers", action="store_true")
    arguments = parser.parse_args()
    report("serve_keys", measure(arguments.seconds, arguments.rounds, peers=not arguments.no_peers))


if __name__ == "__main__":
    main()
