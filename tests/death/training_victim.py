"""A process that trains the bakery's model and is killed: run by test_training_kill.py, not a test itself.

`python training_victim.py STATE ingest` lands the rows. `python training_victim.py STATE train SPEC...` trains once for
each SPEC in a forked child, which dies by SIGKILL: at `@STAGE` when that stage begins, at `+SECONDS` so long after its
start, at `-` never. All that is slow to import is imported once, before the first fork.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from importlib import import_module
from pathlib import Path

from kit.bakery import Bakery, late_model
from mainspring.core.catalog import metadata, open_engine
from mainspring.data.adapters.catalog import CatalogSnapshots
from mainspring.data.adapters.delta import DeltaLake
from mainspring.registry.adapters.folder import FolderBlobs
from mainspring.registry.adapters.mlflow_tracking import MlflowTracking
from mainspring.registry.adapters.mlflow_versions import MlflowVersions

SLOW = [
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.model_registry.sqlalchemy_store",
    "skl2onnx",
    "sklearn.ensemble",
]


def project(state: Path) -> Bakery:
    """The bakery on the embedded adapters, in `state`."""
    engine = open_engine(f"sqlite:///{state / 'catalog.db'}")
    metadata.create_all(engine)
    url = f"sqlite:///{state / 'tracking.db'}"
    return Bakery(
        state,
        lake=DeltaLake(state / "lake"),
        snapshots=CatalogSnapshots(engine),
        tracking=MlflowTracking(url, state / "runs"),
        versions=MlflowVersions(url, engine),
        blobs=FolderBlobs(state / "bundles"),
    )


def train(state: Path, spec: str) -> None:
    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def reached(stage: str, _share: float) -> None:
        if spec == f"@{stage}":
            die()

    if spec.startswith("+"):
        threading.Timer(float(spec[1:]), die).start()
    report = project(state).trainer.train(late_model(), progress=reached)
    if spec.startswith("+"):
        signal.pause()  # done before the kill came: it comes now
    print(report.version, report.digest, flush=True)


def main() -> None:
    state, verb, specs = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    if verb == "ingest":
        project(state).ingest()
        return
    for module in SLOW:
        import_module(module)

    for spec in specs:
        begun = time.monotonic()
        child = os.fork()
        if child == 0:
            train(state, spec)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(spec, os.waitstatus_to_exitcode(status), f"{time.monotonic() - begun:.2f}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
