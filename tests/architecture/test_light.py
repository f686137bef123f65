"""Nothing heavy is imported before it is used, and the gateway never needs what only the workshop needs."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"

HEAVY = {
    "alembic", "cedarpy", "deltalake", "duckdb", "fastapi", "granian", "jinja2", "mlflow", "onnx", "onnxruntime",
    "pandas", "pyarrow", "scipy", "skl2onnx", "sklearn", "sqlalchemy", "sqlglot", "starlette", "torch", "uvicorn",
}  # fmt: skip
WORKSHOP = {
    "pyarrow", "pandas", "duckdb", "mlflow", "deltalake", "sklearn", "onnx", "skl2onnx", "sqlglot", "fastapi",
    "lightgbm", "scipy", "xgboost",
}  # fmt: skip

# numpy is a dependency of every installation, but the face of the package and its command line do without.
FACES = ["mainspring", "mainspring.cli", "mainspring.cli.main"]

# All that a process needs to answer predictions.
GATEWAY = [
    "mainspring.core.catalog",
    "mainspring.security.keys",
    "mainspring.security.policy",
    "mainspring.security.signing",
    "mainspring.security.adapters.catalog",
    "mainspring.ledger.adapters.segments",
    "mainspring.features.online",
    "mainspring.features.definitions",
    "mainspring.features.adapters.sqlite",
    "mainspring.registry.bundles",
    "mainspring.registry.adapters.folder",
    "mainspring.serving.http.gateway",
    "mainspring.serving.plane.executor",
    "mainspring.serving.adapters.onnx",
    "mainspring.serving.adapters.catalog",
    "mainspring.processes.gateway",
]


def _light_modules() -> list[str]:
    found = []
    for path in sorted((SOURCE / "mainspring").rglob("*.py")):
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        if path.name in ("model.py", "ports.py") or (path.name == "__init__.py" and len(name.split(".")) <= 2):
            found.append(name)
    return found


@cache
def _brought_in(modules: tuple[str, ...]) -> frozenset[str]:
    """Return the top-level packages that a fresh interpreter holds after importing `modules`."""
    code = f"""
import importlib, json, sys
for module in {list(modules)!r}:
    importlib.import_module(module)
print(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return frozenset(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("module", FACES)
def test_the_face_and_the_command_line_import_nothing_heavy(module: str) -> None:
    assert _brought_in((module,)) & (HEAVY | {"numpy", "cryptography"}) == set()


def test_words_models_and_ports_import_nothing_heavy() -> None:
    modules = tuple(_light_modules())
    assert len(modules) > 20
    guilty = _brought_in(modules) & HEAVY
    # Only when something is wrong is it worth a process a module to say which.
    assert {module: sorted(_brought_in((module,)) & HEAVY) for module in modules if guilty} == {}


def test_the_words_of_a_project_import_nothing_heavy() -> None:
    code = "import mainspring as ms; [getattr(ms, name) for name in ms.__all__]; import sys, json"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print(json.dumps(sorted({{n.partition('.')[0] for n in sys.modules}})))"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) & (HEAVY - {"pandas"}) == set()


def test_the_gateway_does_without_the_workshop() -> None:
    assert [module for module in GATEWAY if find_spec(module) is None] == []
    guilty = _brought_in(tuple(GATEWAY)) & WORKSHOP
    assert {module: sorted(_brought_in((module,)) & WORKSHOP) for module in GATEWAY if guilty} == {}


def test_the_measure_sees_a_heavy_import() -> None:
    assert "pyarrow" in _brought_in(("mainspring.monitoring.joins",))
