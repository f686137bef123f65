"""Only core.environment touches the environment, project.settings alone reads it, and core.time the machine's time."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "mainspring"

ENVIRONMENT = {"os.environ", "os.environb", "os.getenv", "os.getenvb", "os.putenv", "os.unsetenv"}
TIME = {
    "time.time", "time.time_ns", "time.gmtime", "time.localtime", "datetime.now", "datetime.utcnow", "datetime.today",
    "date.today", "datetime.datetime.now", "datetime.datetime.utcnow", "datetime.date.today", "pd.Timestamp.now",
}  # fmt: skip


def _uses(source: str, wanted: set[str]) -> list[str]:
    """Return the uses of `wanted` (dotted names) in this Python source, also where they were imported by name."""
    modules = {name.rpartition(".")[0] for name in wanted} | {"pandas"}
    above = {name.rpartition(".")[0] for name in modules} - {""}
    imported = rf"(?:import|from) (?:{'|'.join(modules)})\b|from (?:{'|'.join(above or modules)}) import"
    if not re.search(rf"^[ \t]*(?:{imported})", source, re.MULTILINE):
        return []  # parsing takes long
    tree = ast.parse(source)
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
    ends = {name.rpartition(".")[2] for name in wanted}
    found = []
    for node in ast.walk(tree):
        last = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
        if {last, names.get(last, last).rpartition(".")[2]} & ends:
            written = ast.unparse(node)
            first, dot, rest = written.partition(".")
            if {written, names.get(first, first) + dot + rest} & wanted:
                found.append(f"line {node.lineno}: {written}")
    return found


def touches_environment(source: str) -> list[str]:
    return _uses(source, ENVIRONMENT)


def imports_variables(source: str) -> list[str]:
    return _uses(source, {"mainspring.core.environment.variables"})


def reads_time(source: str) -> list[str]:
    return _uses(source, TIME)


def _outside(allowed: tuple[str, ...], search: Callable[[str], list[str]]) -> dict[str, list[str]]:
    """Return what the search finds in each file of the package but those allowed."""
    files = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
    assert len(files) > 400
    found = {name: search(path.read_text()) for name, path in files.items() if not name.startswith(allowed)}
    return {name: uses for name, uses in found.items() if uses}


def test_only_one_module_touches_the_environment() -> None:
    assert _outside(("core/environment.py",), touches_environment) == {}


def test_only_settings_read_the_environment() -> None:
    assert _outside(("project/settings.py",), imports_variables) == {}


def test_only_the_clock_reads_the_time() -> None:
    # An id's first bits only make ids sort; no window, limit or log depends on them.
    assert _outside(("core/time.py", "core/ids.py"), reads_time) == {}


@pytest.mark.parametrize(
    ("search", "source"),
    [
        (touches_environment, "import os\nx = os.environ['A']"),
        (touches_environment, "from os import environ\nenviron.get('A')"),
        (touches_environment, "import os as o\no.getenv('A')"),
        (touches_environment, "import os\nos.environ['TELEMETRY'] = 'off'"),
        (imports_variables, "from mainspring.core.environment import variables\nvariables()['A']"),
        (imports_variables, "from mainspring.core import environment\nenvironment.variables()"),
        (reads_time, "import time\ntime.time()"),
        (reads_time, "from time import time_ns\ntime_ns()"),
        (reads_time, "from datetime import datetime\ndatetime.now(UTC)"),
        (reads_time, "import datetime as dt\ndt.datetime.now()"),
    ],
)
def test_the_search_sees_it(search: Callable[[str], list[str]], source: str) -> None:
    assert search(source)


def test_the_search_lets_the_rest_pass() -> None:
    assert touches_environment("import os\nos.getpid()") == []
    assert imports_variables("from mainspring.core.environment import for_child\nfor_child({})") == []
    assert reads_time("import time\ntime.monotonic(); time.perf_counter_ns(); clock.now()") == []
