"""The tests that a change can break, by who imports what: `make quick` runs them.

A test module is one of them where it imports a module that was changed, or one that imports such a module itself; where
nothing does, those count that are another import away, and so on. What is further, `make check` finds.
"""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import grimp

import mainspring

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
MODULES = {path: ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
           for path in (ROOT / "src").rglob("*.py")}  # fmt: skip
# What lies beside the package, and is imported without it.
BESIDE = {path: ".".join(path.relative_to(folder).with_suffix("").parts)
          for folder in (ROOT / "bench", ROOT / "oip-conformance/src", ROOT / "edge-runtime/src")
          for path in folder.rglob("*.py")}  # fmt: skip


def changed() -> list[Path]:
    """Return the files that differ from where this branch left main, committed or not, new ones included."""
    base = "HEAD"
    for main in ("main", "origin/main"):
        found = _git("merge-base", main, "HEAD", check=False)
        if found:
            base = found[0]
            break
    return [ROOT / name for name in _git("diff", "--name-only", base) + _git("ls-files", "-o", "--exclude-standard")]


def affected(files: Iterable[Path]) -> list[Path]:
    """Return the test modules that a change of these files can break."""
    graph = _graph()
    files = set(files)
    imports = {path: _imports(path) for path in TESTS.rglob("*.py")}
    tested = set().union(*(found for path, found in imports.items() if path.is_relative_to(TESTS / "unit")))
    reached: set[str] = set()
    for each in files & MODULES.keys():
        near, more = {MODULES[each]}, _importers(graph, {MODULES[each]})
        near |= more
        while more and not near & tested:
            more = _importers(graph, more) - near
            near |= more
        reached |= near
    near = {BESIDE[each] for each in files & BESIDE.keys()}
    while near:
        reached |= near
        near = {name for path, name in BESIDE.items() if _imports(path) & near} - reached
    hit = files & imports.keys() | {path for path, found in imports.items() if found & reached}
    # What tests share (kits, worlds) carries a change on to those that import it, a conftest.py its own to its folder.
    folders = {path.parent for path in files if path.name == "conftest.py"}
    hit |= {path for path in imports if folders & {*path.parents}}
    more = {path for path in hit if not path.name.startswith("test_") or path in files}
    while more:
        names = {".".join(path.relative_to(TESTS).with_suffix("").parts) for path in more}
        more = {path for path, found in imports.items() if found & names} - hit
        hit |= more
    return sorted(path for path in hit if path.name.startswith("test_") and path.exists())


@functools.cache
def _graph() -> grimp.ImportGraph:
    return grimp.build_graph("mainspring", exclude_type_checking_imports=True, cache_dir=None)


def _importers(graph: grimp.ImportGraph, modules: set[str]) -> set[str]:
    return set().union(*(graph.find_modules_that_directly_import(each) for each in modules & graph.modules))


@functools.cache
def _imports(path: Path) -> set[str]:
    """Return the modules that a test module imports, and of what it takes from `mainspring` itself, the homes."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ms":
            found.add(mainspring._HOME_OF.get(node.attr, "mainspring"))
    return found


def _git(*arguments: str, check: bool = True) -> list[str]:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=check)
    return done.stdout.splitlines()


if __name__ == "__main__":
    files = changed()
    fast = [path for path in affected(files) if path.is_relative_to(TESTS / "unit")]
    print(f"{len(files)} files changed: {len(fast)} modules of unit tests", file=sys.stderr)
    print(*(path.relative_to(ROOT) for path in [*fast, TESTS / "architecture"]))
