"""Source text of a function and of all that it uses of its project: its version, and enough to run it elsewhere.

Of the function's own module only the statements that it uses are kept, found by name, so a change of another feature in
the same file is no new version. Modules of the project that it imports are kept whole.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from mainspring.core.errors import Invalid
from mainspring.core.module_files import imported_names, sources


class Code(msgspec.Struct, frozen=True):
    """A function's code.

    Attributes:
        module: The module that declares it, for relative imports and messages.
        name: The function's name in `text`.
        text: The statements of that module that the function uses, and the function without decorators.
        files: The text of each other module of the project that it uses.
    """

    module: str
    name: str
    text: str
    files: dict[str, str] = {}

    @property
    def digest(self) -> str:
        """SHA-256 of the code, in hexadecimal."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()

    def __str__(self) -> str:
        return f"{self.module}:{self.name}"


def code_of(function: Callable[..., Any]) -> Code:
    """Return the code of a function at the top of a module.

    Raises:
        Invalid: It is nested, a lambda or a method, or the text of its module is not known.
    """
    name, module = getattr(function, "__name__", repr(function)), getattr(function, "__module__", "")
    fix = "write it with def at the top of a module of the project."
    if not inspect.isfunction(function) or function.__qualname__ != name or name == "<lambda>":
        raise Invalid(f"The feature function {name!r} is not a plain function of a module.", fix=fix)
    file = inspect.getsourcefile(function)
    loaded = sys.modules.get(module)
    text = _text(loaded, file)
    if text is None or file is None:
        raise Invalid(f"The source text of the feature function {name!r} is not known.", fix=fix)
    statements = ast.parse(text).body
    own = [node for node in statements if isinstance(node, ast.FunctionDef) and node.name == name]
    if not own:
        raise Invalid(f"Module {module!r} has no function {name!r} at its top.", fix=fix)
    used = _used(statements, own[-1])
    kept = "\n\n".join(_segment(text, node, bare=node is own[-1]) for node in statements if node in used)
    return Code(module, name, kept + "\n", _files(module, Path(file), kept))


def _text(module: Any, file: str | None) -> str | None:
    loader = getattr(module, "__loader__", None)
    if loader is not None and hasattr(loader, "get_source"):
        found: str | None = loader.get_source(module.__name__)
        return found
    return Path(file).read_text(encoding="utf-8") if file is not None and Path(file).is_file() else None


def _used(statements: list[ast.stmt], function: ast.FunctionDef) -> set[ast.stmt]:
    """Return the statements that a function uses, directly or not, among them itself."""
    binding: dict[str, list[ast.stmt]] = {}
    for node in statements:
        for name in _bound(node):
            binding.setdefault(name, []).append(node)
    used: set[ast.stmt] = {function}
    waiting = sorted(_named(function, bare=True) - vars(builtins).keys() | {"annotations", "*"})
    seen = set(waiting) | {function.name}
    while waiting:
        for node in binding.get(waiting.pop(), ()):
            if node not in used:
                used.add(node)
                fresh = _named(node) - seen
                seen |= fresh
                waiting += fresh
    return used


def _bound(node: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement at the top of a module binds."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield node.name
        return
    for each in ast.walk(node):
        if isinstance(each, (ast.Import, ast.ImportFrom)):
            yield from ((alias.asname or alias.name).partition(".")[0] for alias in each.names)
        elif isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store):
            yield each.id
        elif isinstance(each, (ast.FunctionDef, ast.ClassDef)):
            yield each.name


def _named(node: ast.stmt, *, bare: bool = False) -> set[str]:
    """Return the names that a statement reads; of a function without its decorators if `bare`."""
    parts: list[ast.AST] = [node]
    if bare and isinstance(node, ast.FunctionDef):
        parts = [node.args, *node.body, *([node.returns] if node.returns else [])]
    return {each.id for part in parts for each in ast.walk(part) if isinstance(each, ast.Name)}


def _segment(text: str, node: ast.stmt, *, bare: bool) -> str:
    """Return a statement's text, with its decorators unless `bare`."""
    first = node.lineno
    if not bare and isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        first = min([first, *(each.lineno for each in node.decorator_list)])
    return "\n".join(text.splitlines()[first - 1 : node.end_lineno])


def _files(module: str, file: Path, text: str) -> dict[str, str]:
    """Return the texts of the modules of the project that a text of `module` imports, with their packages."""
    root = file.resolve().parents[module.count(".") + (file.name == "__init__.py")]
    wanted = list(imported_names(module, file, text.encode()))
    return {name: content.decode() for name, (_, content) in sorted(sources(root, wanted, strict=True).items())}


def packages_of(files: Mapping[str, str]) -> set[str]:
    """Return the names among `files`, or above them, that are packages."""
    return {name[:place] for name in files for place, sign in enumerate(name) if sign == "."}
