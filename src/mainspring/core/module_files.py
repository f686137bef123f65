"""Files of a project's modules and of their imports, found without importing them."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mainspring.core.errors import Invalid

Sources = Mapping[str, tuple[Path, bytes]]  # module -> its file, and the content that was read


def sources(root: Path, modules: Sequence[str], *, strict: bool) -> dict[str, tuple[Path, bytes]]:
    """Return the files of modules of the project, of all their imports from it, also inside functions, and of their
    packages. Anything that is not a file of the project is left out.

    Raises:
        Invalid: A file cannot be parsed. Unless `strict`, its imports are left out instead.
    """
    found: dict[str, tuple[Path, bytes]] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        path = None if name in found else file_of(root, name)
        if path is None:
            continue
        content = path.read_bytes()
        found[name] = path, content
        waiting.append(name.rpartition(".")[0])
        try:
            waiting += imported_names(name, path, content)
        except Invalid:
            if strict:
                raise
    return found


def file_of(root: Path, module: str) -> Path | None:
    """Return the file of a module of the project, `None` if there is none. Nothing is imported."""
    if not module or module.partition(".")[0] in sys.stdlib_module_names:  # names that a file must not shadow
        return None
    base = root.joinpath(*module.split("."))
    for path in (base / "__init__.py", base.with_name(f"{base.name}.py")):
        if path.is_file() and path.resolve().is_relative_to(root.resolve()):
            return path
    return None


def imported_names(module: str, path: Path, content: bytes) -> Iterator[str]:
    """Yield the possible modules among the names that a file imports, at the top or inside functions."""
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
