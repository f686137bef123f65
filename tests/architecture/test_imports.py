"""The picture of the house holds, and the contracts that check it would notice if it did not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]


def lint(folder: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()",
         "--no-cache", "--no-logo"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder / "src"), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_the_contracts_hold() -> None:
    code, output = lint(ROOT)
    assert code == 0, output


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("core/ids.py", "import mainspring.stats", "Imports only go down"),
        ("registry/model.py", "import mainspring.ledger.model", "siblings never meet"),
        ("training/model.py", "def f(): import mainspring.serving.model", "siblings never meet"),
        ("console/__init__.py", "import mainspring.cli", "siblings never meet"),
        ("data/model.py", "import mainspring.data.ports", "Inside a package"),
        ("data/ports.py", "import mainspring.data.adapters", "Inside a package"),
        ("security/conformance.py", "import mainspring.security.adapters.memory", "Inside a package"),
        ("monitoring/joins.py", "import mainspring.monitoring.adapters.memory", "Only app chooses adapters"),
        ("delivery/routing.py", "import mainspring.security.adapters.memory", "Only app chooses adapters"),
        ("cli/__init__.py", "def f(): import mainspring.data.adapters", "Only app chooses adapters"),
        ("client/rows.py", "import mainspring.serving.protocol.codec", "Imports only go down"),
        ("client/rows.py", "import mainspring.stats", "siblings never meet"),
        ("newcomer/__init__.py", "", "Imports only go down"),
        ("core/ids.py", "def f(): import pyarrow", "The gateway's path"),
        ("serving/protocol/codec.py", "import pandas.api", "The gateway's path"),
        ("registry/bundles.py", "import mainspring.data.duck", "The gateway's path"),
    ],
)
def test_a_wrong_import_is_noticed(tmp_path: Path, module: str, line: str, contract: str) -> None:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    changed = tmp_path / "src" / "mainspring" / module
    changed.parent.mkdir(exist_ok=True)
    before = changed.read_text() if changed.exists() else ""
    changed.write_text(f"{before}\n{line}\n")

    code, output = lint(tmp_path)

    assert code == 1, output
    assert any(contract in each and "BROKEN" in each for each in output.splitlines()), output


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("mainspring", exclude_type_checking_imports=True, cache_dir=None)


def test_models_and_ports_know_no_service(graph: grimp.ImportGraph) -> None:
    """What a package's services are is not written down anywhere, so the linter's contracts cannot name them."""
    # Values that fill a file of their own: below the model, and like it without services.
    values = {f"mainspring.data.{name}" for name in ("checks", "panderas", "patterns")}
    values |= {
        "mainspring.training.label",
        "mainspring.training.space",
        "mainspring.jobs.plain",
        "mainspring.jobs.times",
    }
    wrong = []
    for module in graph.modules:
        _, _, rest = module.partition(".")
        package, _, name = rest.partition(".")
        if name in ("model", "ports") or module in values:
            allowed = values | ({f"mainspring.{package}.model"} if name == "ports" else set())
            own = {
                each
                for each in graph.find_modules_directly_imported_by(module)
                if each.startswith(f"mainspring.{package}.")
            }
            wrong += [f"{module} imports {each}" for each in sorted(own - allowed)]
    assert wrong == []


def test_only_tests_import_a_conformance_suite(graph: grimp.ImportGraph) -> None:
    suites = [module for module in graph.modules if module.endswith(".conformance")]
    assert suites
    assert [
        f"{who} imports {suite}" for suite in suites for who in graph.find_modules_that_directly_import(suite)
    ] == []


def test_every_package_has_a_face() -> None:
    faceless = []
    for path in sorted((ROOT / "src" / "mainspring").glob("*/__init__.py")):
        text = path.read_text()
        if not text.startswith('"""') or "TODO" in text:
            faceless.append(path.parent.name)
    assert faceless == []
