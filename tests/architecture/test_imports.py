"""The picture of the house holds, and the contracts that check it would notice if it did not."""

from __future__ import annotations

import ast
import sys
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grimp
import pytest
from importlinter.api import read_configuration
from importlinter.contracts.forbidden import ForbiddenContract
from importlinter.contracts.layers import LayersContract
from importlinter.contracts.protected import ProtectedContract

ROOT = Path(__file__).parents[2]
CONFIGURATIONS = [ROOT / "pyproject.toml", Path(__file__).parent / "runtime.toml"]
CONTRACTS: dict[str, Any] = {"forbidden": ForbiddenContract, "layers": LayersContract, "protected": ProtectedContract}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("mainspring", exclude_type_checking_imports=True, cache_dir=None)


@dataclass(frozen=True)
class Rule:
    """A contract, and the imports as its configuration has the linter see them, other people's packages included."""

    name: str
    contract: Any
    graph: grimp.ImportGraph

    def kept(self, *imports: tuple[str, str], by: str | None = None) -> bool:
        """Return whether the contract is kept with these imports added, by a module that need not be there yet."""
        graph = deepcopy(self.graph)
        if by is not None:
            graph.add_module(by)
        for importer, imported in imports:
            graph.add_import(importer=importer, imported=imported)
        return bool(self.contract.check(graph, verbose=False).kept)


@pytest.fixture(scope="module")
def rules() -> list[Rule]:
    found = []
    for path, runtime in zip(CONFIGURATIONS, (False, True), strict=True):
        configuration = read_configuration(str(path))
        session = configuration["session_options"]
        assert session["include_external_packages"] == "True"
        assert session.get("exclude_type_checking_imports") == ("True" if runtime else None)
        graph = grimp.build_graph(
            "mainspring", include_external_packages=True, exclude_type_checking_imports=runtime, cache_dir=None
        )
        for options in configuration["contracts_options"]:
            kind = CONTRACTS[options["type"]]
            contract = kind(name=options["name"], session_options=session, contract_options=options)
            found.append(Rule(options["name"], contract, graph))
    return found


def test_the_contracts_hold(rules: list[Rule]) -> None:
    assert [rule.name for rule in rules if not rule.kept()] == []


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("core/ids.py", "import mainspring.stats", "Imports only go down"),
        ("registry/model.py", "import mainspring.ledger.model", "siblings never meet"),
        ("training/model.py", "def f(): import mainspring.serving.model", "siblings never meet"),
        ("console/__init__.py", "import mainspring.cli", "siblings never meet"),
        ("data/model.py", "import mainspring.data.ports", "Inside a package"),
        ("data/ports.py", "import mainspring.data.adapters", "Inside a package"),
        ("security/conformance.py", "import mainspring.security.adapters.catalog", "Inside a package"),
        ("monitoring/joins.py", "import mainspring.monitoring.adapters.catalog", "Only project chooses adapters"),
        ("delivery/routing.py", "import mainspring.security.adapters.catalog", "Only project chooses adapters"),
        ("cli/__init__.py", "def f(): import mainspring.data.adapters", "Only project chooses adapters"),
        ("operations/train.py", "import mainspring.registry.adapters.mlflow_tracking", "Only project chooses adapters"),
        ("operations/train.py", "def f(): import mainspring.processes.supervisor", "Imports only go down"),
        ("project/backends/base.py", "import mainspring.operations.train", "Imports only go down"),
        ("client/rows.py", "import mainspring.serving.protocol.codec", "Imports only go down"),
        ("client/rows.py", "import mainspring.stats", "siblings never meet"),
        ("newcomer/__init__.py", "", "Imports only go down"),
        ("core/ids.py", "def f(): import pyarrow", "The gateway's path"),
        ("serving/protocol/codec.py", "import pandas.api", "The gateway's path"),
        ("registry/bundles.py", "import mainspring.data.duck", "The gateway's path"),
    ],
)
def test_a_wrong_import_is_noticed(rules: list[Rule], module: str, line: str, contract: str) -> None:
    importer = ".".join(Path("mainspring", module).with_suffix("").parts).removesuffix(".__init__")
    imports = []
    for each in ast.walk(ast.parse(line)):
        if isinstance(each, ast.Import):
            (imported,) = each.names
            # Another's package is one module, however deep the import goes.
            name = imported.name if imported.name.startswith("mainspring.") else imported.name.partition(".")[0]
            imports.append((importer, name))
    concerned = [rule for rule in rules if contract in rule.name]
    assert concerned
    assert not all(rule.kept(*imports, by=importer) for rule in concerned)


def test_an_import_counts_wherever_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the eyes of a type checker."""
    (tmp_path / "house").mkdir()
    (tmp_path / "house" / "__init__.py").write_text(
        "from typing import TYPE_CHECKING\nimport sqlite3.dbapi2\ndef f(): import pandas.api\n"
        "class C:\n    from house import room\nif TYPE_CHECKING:\n    import pyarrow\n"
    )
    (tmp_path / "house" / "room.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    found = grimp.build_graph(
        "house", include_external_packages=True, exclude_type_checking_imports=True, cache_dir=None
    )
    assert found.find_modules_directly_imported_by("house") == {"typing", "sqlite3", "pandas", "house.room"}


def test_models_and_ports_know_no_service(graph: grimp.ImportGraph) -> None:
    """What a package's services are is not written down anywhere, so the linter's contracts cannot name them."""
    # Values that fill a file of their own: below the model, and like it without services.
    values = {f"mainspring.data.{name}" for name in ("checks", "panderas", "patterns")}
    values |= {f"mainspring.delivery.rollout.{name}" for name in ("guards", "model", "plan")}
    values |= {
        "mainspring.cost.usage",
        "mainspring.serving.devices.device",
        "mainspring.serving.explanation",
        "mainspring.serving.outputs",
        "mainspring.security.quota",
        "mainspring.training.distribution",
        "mainspring.training.gate_kinds",
        "mainspring.training.gate_options",
        "mainspring.training.gates",
        "mainspring.training.label",
        "mainspring.training.mutable",
        "mainspring.training.space",
        "mainspring.training.preemption.names",
        "mainspring.jobs.plain",
        "mainspring.serving.simulation_report",
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


def test_the_protocols_suite_imports_nothing_of_ours() -> None:
    graph = grimp.build_graph("oip_conformance", include_external_packages=True, cache_dir=None)
    assert len(graph.modules) > 10
    assert {"mainspring", "numpy"} & graph.modules == set()


def test_a_device_needs_little() -> None:
    graph = grimp.build_graph("mainspring_edge", include_external_packages=True, cache_dir=None)
    own = {each for each in graph.modules if each.partition(".")[0] == "mainspring_edge"}
    assert len(own) > 5
    needed = {"cryptography", "numpy", "onnxruntime"}
    extra = {"tuf", "securesystemslib", "paho"}  # of the extra `fleet`
    others = {each.partition(".")[0] for each in graph.modules - own} - set(sys.stdlib_module_names)
    assert needed <= others <= needed | extra


def test_every_package_has_a_face() -> None:
    faceless = []
    for path in sorted((ROOT / "src" / "mainspring").glob("*/__init__.py")):
        text = path.read_text()
        if not text.startswith('"""') or "TODO" in text:
            faceless.append(path.parent.name)
    assert faceless == []
