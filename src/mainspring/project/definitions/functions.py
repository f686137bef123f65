"""Functions of the project that serve as models: found by name, digested with their imports, and run from the digested
bytes.

The digest covers the function's module and every module of the project that it imports, directly or indirectly, also
inside functions. The digested bytes themselves are executed, never a cache, so a changed file is detected even if the
process has imported an earlier version.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from mainspring.core.errors import Corrupt, Invalid
from mainspring.core.module_files import Sources, file_of, sources
from mainspring.project.definitions.importing import importing
from mainspring.registry.model import FUNCTION, Code


def source_digest(root: Path, function: str) -> str:
    """Return the SHA-256 of the source of `module:function` and of the project's modules that it imports.

    Raises:
        Invalid: It has another form, its module is not a file of the project, or a file cannot be parsed.
    """
    return _digest(_sources(root, function))


def load_code(root: Path, code: Code) -> Callable[..., Any]:
    """Return the function that `code` names, if its source has not changed since its registration.

    Raises:
        Corrupt: The source has changed, or the function cannot be imported.
    """
    again = "register it again: `mainspring models function`."
    try:
        current = _sources(root, code.function)
    except Invalid as error:
        raise Corrupt(error.what, fix=error.fix) from error
    if _digest(current) != code.source:
        raise Corrupt(
            f"The source of {code.function} has changed since it was registered: its SHA-256 is "
            f"{_digest(current)[:12]}…, not {code.source[:12]}….",
            fix=again,
        )
    module, _, name = code.function.partition(":")
    try:
        attribute = getattr(_execute(root, current, module), name, None)
    except Exception as error:  # a module may raise anything
        raise Corrupt(f"Cannot import {module}: {type(error).__name__}: {error}", fix=again) from error
    if not callable(attribute):
        raise Corrupt(f"Module {module} has no function {name!r}.", fix=again)
    function: Callable[..., Any] = attribute
    return function


def _digest(found: Sources) -> str:
    digest = hashlib.sha256()
    for module, (_, content) in sorted(found.items()):
        digest.update(f"{module}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _sources(root: Path, function: str) -> Sources:
    """Return the files of the function's module, its imports, and their packages."""
    if not FUNCTION.fullmatch(function):
        raise Invalid(f"{function[:80]!r} is not the name of a function.", fix="write module:function.")
    module = function.partition(":")[0]
    if file_of(root, module) is None:
        raise Invalid(
            f"There is no module {module!r} in the project.",
            fix=f"write it as {root / (module.replace('.', '/') + '.py')}, or name another module.",
        )
    return sources(root, [module], strict=True)


def _execute(root: Path, found: Sources, module: str) -> ModuleType:
    with importing(root, found, [module], first=False):
        return importlib.import_module(module)
