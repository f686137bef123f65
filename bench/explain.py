"""How long does an exact explanation take, and is it the same as shap's?

Four classifiers of a hundred trees on 25 columns, a tenth of the values null: one row at a time, and 1,000 rows. Ours
is the whole way from Python values to contributions, the model's own answer and the check of the sum included. Peers:
shap's TreeExplainer against the same 100 rows of background (interventional, the same question as ours for
scikit-learn), shap's TreeExplainer by the trees' own counts (path-dependent, the same question as ours for XGBoost and
LightGBM), and shap's generic explainer, which asks any model. shap's two "request" columns do what ours does: Python
values to a matrix, the model's answer, and the contributions. Times are of the processor. shap fits the same estimators
in its own environment: `python bench/peers.py shap`.

python bench/explain.py --data FILE.parquet   columns of numbers with a dot in their names, and `label`
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from environments import PEERS
from explain_side import estimator
from mainspring.core.schema import DType
from mainspring.project.explainers import load_explainer
from mainspring.registry.bundles import seal
from mainspring.registry.model import Bundle, Input, Manifest
from mainspring.security.signing import SigningKey
from mainspring.serving.background import background_of
from mainspring.training.bundling import golden_file
from mainspring.training.flavours import convert_estimator
from mainspring.training.flavours.scoring import artefact_scores
from report import Case, report

KINDS = ("hgb", "forest", "xgboost", "lightgbm")
SIDE = Path(__file__).with_name("explain_side.py")
COLUMNS, ROWS, ASKED = 25, 20_000, 1_000
MOST_MS, TIMES_FASTER = 10.0, 20  # wanted
GAMES = {
    "shap generic": "any model, by asking it",
    "shap interventional": "the same 100 rows; ours for scikit-learn is this game",
    "shap request, interventional": "the same, from Python values, with the model's answer",
    "shap path-dependent": "compiled; ours for XGBoost and LightGBM is this game",
    "shap request, path-dependent": "the same, from Python values, with the model's answer",
}


def made(seed: int = 0) -> tuple[Any, Any, list[str]]:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(ROWS + 2 * ASKED, COLUMNS)).astype(np.float32)
    pull = (
        matrix[:, 0]
        + matrix[:, 1] * matrix[:, 2]
        + np.sin(3 * matrix[:, 3])
        + (matrix[:, 4] > 1) * matrix[:, 5]
        + 0.3 * matrix[:, 6:20].sum(axis=1)
    )
    y = rng.random(len(matrix)) < 1 / (1 + np.exp(-pull))
    matrix[rng.random(matrix.shape) < 0.1] = np.nan
    return matrix, y, [f"Made.c{place}" for place in range(COLUMNS)]


def read(path: Path, seed: int = 0) -> tuple[Any, Any, list[str]]:
    import pandas as pd

    table = pd.read_parquet(path)
    names = [name for name in table.columns if "." in name]
    for name in names:
        if table[name].dtype.kind not in "bif":
            table[name] = table[name].astype("category").cat.codes
    chosen = np.random.default_rng(seed).permutation(len(table))[: ROWS + 2 * ASKED]
    return table[names].to_numpy(np.float32)[chosen], table["label"].to_numpy(bool)[chosen], names


def bundle_of(fitted: Any, matrix: Any, names: list[str]) -> Bundle:
    import pandas as pd

    frame = pd.DataFrame(matrix, columns=names)
    inputs = tuple(Input(name, DType.Float32) for name in names)
    artefact = convert_estimator(fitted, inputs, "binary")
    scores = artefact_scores(artefact, frame, names)
    golden = golden_file(frame, dict.fromkeys(names, DType.Float32), scores, ("probability",))
    manifest = Manifest(
        model="bench", task="binary", flavour=artefact.flavour, inputs=inputs, outputs=("probability",), run_id="",
        dataset_commit="", features_digest="", code_version="", created_at=0,
    )  # fmt: skip
    files = {artefact.name: artefact.content, "golden.json": golden}
    return seal(manifest, files, SigningKey(bytes(range(32))))


def columns_of(matrix: Any, names: list[str]) -> dict[str, list[Any]]:
    return {
        name: [None if np.isnan(value) else value for value in matrix[:, place].tolist()]
        for place, name in enumerate(names)
    }


def measure(kind: str, matrix: Any, y: Any, names: list[str], side: Path | None) -> list[Case]:
    train, held_out, rows = matrix[:ROWS], matrix[ROWS : ROWS + ASKED], matrix[ROWS + ASKED :]
    fitted = estimator(kind).fit(train, y[:ROWS])
    bundle = bundle_of(fitted, held_out, names)
    begun = time.process_time()
    explainer = load_explainer(bundle)
    loaded = time.process_time() - begun
    given = columns_of(rows, names)
    singles = [{name: [values[place]] for name, values in given.items()} for place in range(len(rows))]
    explainer.explain(singles[0], 1)
    one = []
    for single in singles[:500]:
        begun = time.process_time()
        explainer.explain(single, 1)
        one.append((time.process_time() - begun) * 1e3)
    begun = time.process_time()
    found = explainer.explain(given, len(rows))
    rate = len(rows) / (time.process_time() - begun)
    assert found.additive.all(), f"residual {np.abs(found.residual).max()}"
    background, _ = background_of(bundle, explainer.method.background or 100)
    beside = np.array([[np.nan if value is None else value for value in background[name]] for name in names])
    peer, notes = _peer(kind, side, train, y[:ROWS], rows, beside.T.astype(np.float32), found.values[:, :, 0])
    times, rates = peer.get("times", {}), peer.get("rates", {})
    ways = ("interventional", "path-dependent", "generic", "request, interventional", "request, path-dependent")
    notes |= {"ours": f"{explainer.method.name}; residual {np.abs(found.residual).max():.1g}; ready in {loaded:.2f} s"}
    cases = [
        Case(
            f"{kind}: one prediction, {name}", "ms", round(float(np.quantile(one, share)), 3),
            peers={f"shap {way}": round(float(np.quantile(times[way], share)), 3) for way in ways if way in times},
            notes=notes if share == 0.5 else {},
        )
        for name, share in (("p50", 0.5), ("p99", 0.99))
    ]  # fmt: skip
    whole = {f"shap {way}": round(rates[way]) for way in rates}
    return [*cases, Case(f"{kind}: {ASKED:,} at once", "rows/s", round(rate), peers=whole, more_is_better=True)]


def _peer(
    kind: str, python: Path | None, matrix: Any, y: Any, rows: Any, background: Any, ours: Any
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what shap took, and how far its contributions are from ours."""
    if python is None:
        return {}, {"shap": "not installed: python bench/peers.py shap"}
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.npz", Path(folder) / "out.npz"
        np.savez(source, X=matrix, y=y, rows=rows, background=background)
        done = subprocess.run(
            [python, SIDE, kind, source, target], capture_output=True, text=True, check=False, cwd=folder
        )
        if done.returncode:
            return {}, {"shap": done.stderr.strip().splitlines()[-1]}
        found = np.load(target)
        same = found["interventional" if kind in ("hgb", "forest") else "path_dependent"]
    same = same[..., 1] if same.ndim == 3 else same
    off = float(np.abs(same - ours[: len(same)]).max())
    said = json.loads(done.stdout)
    return said, {"shap": f"{said['version']}; largest difference from ours {off:.1g}"}


def verdicts(cases: Sequence[Case]) -> list[str]:
    """Return what was wanted, what was measured, and whether that is met."""
    slowest = max((each.ours or 0.0 for each in cases if "p99" in each.case), default=0.0)
    said = [f"trees, p99: wanted under {MOST_MS:g} ms, got {slowest:g}; {'met' if slowest < MOST_MS else 'NOT met'}"]
    for way, game in GAMES.items():
        ratios = {
            each.case.partition(":")[0]: (each.peers[way] or 0.0) / (each.ours or 1.0)
            for each in cases
            if "p50" in each.case and way in each.peers
        }
        if ratios:
            told = ", ".join(f"{kind} {ratio:.1f}" for kind, ratio in ratios.items())
            met = "met" if min(ratios.values()) >= TIMES_FASTER else "NOT met"
            said.append(f"{way} ({game}): wanted {TIMES_FASTER} times as fast, got {told}; {met}")
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--kinds", nargs="*", default=KINDS, choices=KINDS)
    parser.add_argument("--peer", type=Path, default=PEERS / "shap" / "bin" / "python", help="an interpreter with shap")
    arguments = parser.parse_args()
    matrix, y, names = read(arguments.data) if arguments.data else made()
    side = arguments.peer if arguments.peer.exists() else None
    cases = [case for kind in arguments.kinds for case in measure(kind, matrix, y, names, side)]
    print(*verdicts(cases), sep="\n")
    report("explain", cases)


if __name__ == "__main__":
    sys.exit(main())
