"""What do signed, verified bundles cost? Save, verify and load, against joblib and MLflow's own model format.

The model is scikit-learn's histogram gradient boosting; a bundle holds it as ONNX, the peers as a pickle. A save counts
until the bytes are on the disk (ours syncs, the peers do not), a load until the model can answer. The floors do the
same work without names, manifest and signature: write and sync, read and hash, read and open the session. What
verifying adds to hashing is the signature and the walk through the model's file: once a save, once a load. Sides take
turns, the peers in a process each (bench/bundle_side.py), and the fastest turn counts. Cold is a new process, from its
start to its first answer.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from bundle_side import COLUMNS, estimator, rows
from environments import PEERS
from mainspring.registry.adapters.folder import FolderBlobs
from mainspring.registry.bundles import Bundles, seal
from mainspring.registry.model import Bundle, Manifest, TensorSpec
from mainspring.security.signing import SigningKey
from mainspring.serving.adapters.onnx import describe
from mainspring.serving.adapters.sessions import open_session
from report import Case, report

KEY = SigningKey(b"k" * 32)
SIDE = Path(__file__).with_name("bundle_side.py")
PYTHON = PEERS / "mlflow" / "bin" / "python"
MISSING = "not installed here: run `python bench/peers.py mlflow`"
UNVERIFIED = "loads without looking: there is no digest and no signature"


def onnx_of(model: Any) -> bytes:
    from skl2onnx import to_onnx

    options = {id(model): {"zipmap": False}}
    return bytes(to_onnx(model, rows()[:1], options=options, target_opset=18).SerializeToString())


def manifest_of(content: bytes) -> tuple[Manifest, bytes]:
    """Return what stands beside the model in each bundle: the manifest without a time, and golden rows."""
    takes, gives = describe(content, "the model")
    golden = json.dumps({"inputs": {takes[0].name: rows()[:64].tolist()}, "outputs": {}}).encode()
    manifest = Manifest(
        model="bench", task="tensors", flavour="onnx", inputs=(), outputs=tuple(each.name for each in gives),
        tensors=(TensorSpec(takes[0].name, "FP32", (-1, COLUMNS)),), output_tensors=tuple(gives), run_id="r",
        dataset_commit="", features_digest="", code_version="", created_at=0,
    )  # fmt: skip
    return manifest, golden


def fastest(ways: Mapping[str, Callable[[int], object]], rounds: int) -> dict[str, float]:
    """Return the shortest milliseconds of each way, one turn after another; the first turn does not count."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            before = time.perf_counter()
            way(turn)
            if turn:
                times[name].append((time.perf_counter() - before) * 1e3)
    return {name: round(min(measured), 3) for name, measured in times.items()}


def write_synced(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.mkdir()
    for name, content in files.items():
        with (folder / name).open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


def in_bytes(path: Path) -> float:
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return round(sum(each.stat().st_size for each in files) / 1e3, 1)


def cold(python: Path | str, way: str, place: Path, rounds: int) -> float:
    """Return the shortest time of a process that loads the model and answers once, ms."""
    times = []
    for _ in range(rounds):
        before = time.perf_counter()
        subprocess.run([str(python), str(SIDE), way, str(place)], check=True, capture_output=True)
        times.append((time.perf_counter() - before) * 1e3)
    return round(min(times), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--cold-rounds", type=int, default=5)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-bundle-"))
    try:
        measure(folder, arguments.rounds, arguments.cold_rounds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def measure(folder: Path, rounds: int, cold_rounds: int) -> None:
    model = estimator()
    content = onnx_of(model)
    bundles = Bundles(FolderBlobs(folder / "bundles"), KEY.public)
    manifest, golden = manifest_of(content)

    def sealed(number: int) -> Bundle:
        made = msgspec.structs.replace(manifest, created_at=number)
        return seal(made, {"model.onnx": content, "golden.json": golden}, KEY)

    kept = sealed(0)
    bundles.save(kept)
    plain = folder / "bundles" / kept.digest
    blob = {path.name: path.read_bytes() for path in plain.iterdir()}
    asked = rows()[:64]
    session = open_session(bundles.load(kept.digest).files["model.onnx"], "the model")
    answers = session.run(None, {session.get_inputs()[0].name: asked})[1]
    np.testing.assert_allclose(answers, model.predict_proba(asked), atol=1e-5)

    save = fastest(
        {
            "ours": lambda turn: bundles.save(sealed(turn + 1)),
            "floor": lambda turn: write_synced(folder / f"plain-{turn}", blob),
        },
        rounds,
    )
    verify = fastest(
        {
            "ours": lambda _: bundles.load(kept.digest),
            "floor": lambda _: [hashlib.sha256((plain / name).read_bytes()).digest() for name in blob],
        },
        rounds,
    )
    load = fastest(
        {
            "ours": lambda _: open_session(bundles.load(kept.digest).files["model.onnx"], "the model"),
            "floor": lambda _: open_session((plain / "model.onnx").read_bytes(), "the model"),
        },
        rounds,
    )
    joblib = of_side(sys.executable, "joblib", folder / "joblib", rounds)
    mlflow = of_side(PYTHON, "mlflow", folder / "mlflow", rounds) if PYTHON.exists() else {}
    notes = {} if mlflow else {"mlflow": MISSING}
    (folder / "place").write_text(f"{folder / 'bundles'} {kept.digest} {KEY.public.hex()}")
    begun = {
        "ours": cold(sys.executable, "ours", folder / "place", cold_rounds),
        "joblib": cold(sys.executable, "joblib", folder / "joblib" / "0", cold_rounds),
        "mlflow": cold(PYTHON, "mlflow", folder / "mlflow" / "0", cold_rounds) if mlflow else None,
    }
    size = in_bytes(folder / "mlflow" / "0") if mlflow else None
    synced = {"save": "ours and the floor sync each file to the disk; joblib and MLflow leave that to the system"}
    report(
        "bundle",
        [
            _case("save", "save", save, joblib, mlflow, {**notes, **synced}),
            Case(
                "verify", "ms", verify["ours"], verify["floor"], {"joblib": None, "mlflow": None},
                {"joblib": UNVERIFIED, "mlflow": UNVERIFIED},
            ),
            _case("load, verified, until it can answer", "load", load, joblib, mlflow, notes),
            Case(
                "cold: from the start of a process to an answer", "ms", begun["ours"], None,
                {"joblib": begun["joblib"], "mlflow": begun["mlflow"]}, notes,
            ),
            Case(
                "size on the disk", "KB", in_bytes(plain), in_bytes(plain / "model.onnx"),
                {"joblib": in_bytes(folder / "joblib" / "0"), "mlflow": size}, notes,
            ),
        ],
    )  # fmt: skip


def _case(
    name: str,
    what: str,
    times: Mapping[str, float],
    joblib: Mapping[str, float],
    mlflow: Mapping[str, float],
    notes: Mapping[str, str],
) -> Case:
    peers = {"joblib": joblib[what], "mlflow": mlflow.get(what)}
    return Case(name, "ms", times["ours"], times["floor"], peers, notes)


def of_side(python: Path | str, way: str, folder: Path, rounds: int) -> dict[str, float]:
    """Return what a peer takes to save and to load. The model `0` stays in `folder`."""
    folder.mkdir()
    command = [str(python), str(SIDE), way, str(folder), str(rounds)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, float] = json.loads(told.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
