"""Functions of the project that serve as models: found by name, digested with all they import, run as digested.

The digest covers the function's module and every module of the project that it imports, directly or not, wherever the
import stands. What was digested is what runs: those modules are executed from the very bytes, never from a cache, so a
changed file is seen even where the process has imported an earlier one.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from mainspring.core.errors import Corrupt, Invalid
from mainspring.registry.code import FUNCTION
from mainspring.registry.model import Code

_loading = threading.Lock()  # the modules of a process are one table


def source_digest(root: Path, function: str) -> str:
    """Return the SHA-256 of the source of `module:function` and of what of the project it imports.

    Raises:
        Invalid: It is not written so, its module is not a file of the project, or a file cannot be parsed.
    """
    return _digest(_sources(root, function))


def load_code(root: Path, code: Code) -> Callable[..., Any]:
    """Return the function that `code` names, if its source is what it was when it was registered.

    Raises:
        Corrupt: It is not, or the function cannot be imported.
    """
    again = "register it again: `mainspring models function`."
    try:
        sources = _sources(root, code.function)
    except Invalid as error:
        raise Corrupt(error.what, fix=error.fix) from error
    if _digest(sources) != code.source:
        raise Corrupt(
            f"The source of {code.function} was changed since it was registered: its SHA-256 is "
            f"{_digest(sources)[:12]}…, not {code.source[:12]}….",
            fix=again,
        )
    module, _, name = code.function.partition(":")
    try:
        found = getattr(_execute(root, sources, module), name, None)
    except Exception as error:  # a module may raise anything
        raise Corrupt(f"Cannot import {module}: {type(error).__name__}: {error}", fix=again) from error
    if not callable(found):
        raise Corrupt(f"Module {module} has no function {name!r}.", fix=again)
    function: Callable[..., Any] = found
    return function


def _digest(sources: Mapping[str, tuple[Path, bytes]]) -> str:
    digest = hashlib.sha256()
    for module, (_, content) in sorted(sources.items()):
        digest.update(f"{module}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


# Which files


def _sources(root: Path, function: str) -> dict[str, tuple[Path, bytes]]:
    """Return module -> (file, content), of the function's module, what it imports, and the packages they are in."""
    if not FUNCTION.fullmatch(function):
        raise Invalid(f"{function[:80]!r} names no function.", fix="write module:function.")
    module = function.partition(":")[0]
    if _file(root, module) is None:
        raise Invalid(
            f"There is no module {module!r} in the project.",
            fix=f"write it as {root / (module.replace('.', '/') + '.py')}, or name another.",
        )
    found: dict[str, tuple[Path, bytes]] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = None if name in found else _file(root, name)
        if path is None:
            continue
        content = path.read_bytes()
        found[name] = path, content
        waiting += [name.rpartition(".")[0], *_imports(name, path, content)]
    return found


def _file(root: Path, module: str) -> Path | None:
    """Return the file of a module of the project, `None` if it has none there: by looking, never by importing."""
    if not module:
        return None
    base = root.joinpath(*module.split("."))
    for path in (base / "__init__.py", base.with_name(f"{base.name}.py")):
        if path.is_file() and path.resolve().is_relative_to(root.resolve()):
            return path
    return None


def _imports(module: str, path: Path, content: bytes) -> Iterator[str]:
    """Yield what may be a module among the names that a file imports, at its top or inside of a function."""
    try:
        tree = ast.parse(content, str(path))
    except (SyntaxError, ValueError) as error:
        raise Invalid(f"{path} cannot be parsed: {error}.", fix="correct that line.") from error
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            base = ".".join(part for part in (above, node.module) if part)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


# Running exactly those


class _Sources(MetaPathFinder, InspectLoader):
    """Imports modules from bytes that were read before."""

    def __init__(self, sources: Mapping[str, tuple[Path, bytes]]) -> None:
        self._sources = sources

    def find_spec(self, fullname: str, _path: Any = None, _target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname not in self._sources:
            return None
        spec = spec_from_loader(fullname, self, origin=str(self._sources[fullname][0]))
        if spec is not None and spec.submodule_search_locations is not None:
            spec.submodule_search_locations.append(str(self._sources[fullname][0].parent))
        return spec

    def is_package(self, fullname: str) -> bool:
        return self._sources[fullname][0].name == "__init__.py"

    def get_source(self, fullname: str) -> str:
        return self._sources[fullname][1].decode()

    def get_code(self, fullname: str) -> CodeType:
        path, content = self._sources[fullname]
        return compile(content, str(path), "exec", dont_inherit=True)


def _execute(root: Path, sources: Mapping[str, tuple[Path, bytes]], module: str) -> ModuleType:
    finder = _Sources(sources)
    with _loading:
        if str(root) not in sys.path:
            sys.path.append(str(root))
        for name in sources:
            sys.modules.pop(name, None)
        sys.meta_path.insert(0, finder)
        try:
            return importlib.import_module(module)
        finally:
            sys.meta_path.remove(finder)
