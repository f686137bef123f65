"""Import of a project's own modules and of what they declare. All problems are reported at once."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mainspring.core.definition_registry import Declared, Place, collecting
from mainspring.core.errors import Invalid, InvalidDefinition, MainspringError
from mainspring.core.module_files import sources
from mainspring.core.settings import Settings
from mainspring.features.model import Observations
from mainspring.jobs.declaring import OwnJob
from mainspring.jobs.pipelines.declaring import Pipeline
from mainspring.project.definitions.checks import problems
from mainspring.project.definitions.importing import importing, outdated, turn
from mainspring.project.definitions.model import KINDS, Definitions
from mainspring.project.schedules import check_scheduled

_known: dict[tuple[Path, tuple[str, ...]], tuple[int, Declared]] = {}  # with the `turn` of the import


def load_definitions(settings: Settings, known: Callable[[str], bool] = lambda _: False) -> Definitions:
    """Import the project's modules and return their definitions.

    A repeated call returns the same objects while no file has changed, else new ones.

    Args:
        known: Returns whether a model is registered; called if an endpoint serves a model that is not declared.

    Raises:
        InvalidDefinition: A module cannot be imported, or the definitions are inconsistent.
        Invalid: `mainspring.toml` names no modules.
    """
    if not settings.modules:
        raise Invalid(
            f"{settings.root / 'mainspring.toml'} names no modules.", fix='add modules = ["PACKAGE.features"].'
        )
    declared = _declared(settings.root, settings.modules)
    found = sorted(set(problems(declared, known)))
    if found:
        raise InvalidDefinition([line for _, _, line in found])

    def named(kind: type[Any]) -> dict[str, Any]:
        return {item.name: item for item in declared.of(kind)}

    check_scheduled(settings, named(OwnJob), named(Pipeline))

    observations = tuple(declared.of(Observations))
    return Definitions(observations=observations, **{field: named(kind) for field, kind, _ in KINDS})


def load_function(settings: Settings, reference: str) -> Callable[[], Any]:
    """Return the function that `module:function` names in the project.

    Raises:
        Invalid: There is no such module or function.
    """
    module_name, _, name = reference.partition(":")
    try:
        files = sources(settings.root, [module_name], strict=False)
        with importing(settings.root, files, [module_name]):
            module = _import(module_name, settings.root)
    except InvalidDefinition as error:
        what, _, fix = error.problems[0].partition(" Fix: ")
        raise Invalid(f"Cannot import {module_name!r}: {what}", fix=fix or None) from None
    function = getattr(module, name, None)
    if not callable(function):
        raise Invalid(f"Module {module_name!r} has no function {name!r}.", fix="write module:function.")
    found: Callable[[], Any] = function
    return found


def _declared(root: Path, modules: tuple[str, ...]) -> Declared:
    """Return the declarations of the modules; those of imported modules come from a cache."""
    current = sources(root, modules, strict=False)
    cached = _known.get((root, modules))
    if cached is not None and cached[0] == turn(root) and current.keys() >= set(modules) and not outdated(current):
        return cached[1]
    with importing(root, current, modules, afresh=True), collecting() as declared:
        for module in modules:
            _import(module, root)
    _known[root, modules] = turn(root), declared
    return declared


def _import(name: str, root: Path) -> Any:
    try:
        return importlib.import_module(name)
    except MainspringError as error:
        raise InvalidDefinition([f"{place_of(error, root)}: {error}"]) from error
    except Exception as error:
        said = f"{place_of(error, root)}: {type(error).__name__}: {error}".rstrip(".")
        raise InvalidDefinition([f"{said}. Fix: {_remedy(error, name)}"]) from error


def _remedy(error: Exception, module: str) -> str:
    if isinstance(error, ModuleNotFoundError):
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            return "write that module, or correct modules in mainspring.toml."
        return f"install the package that provides {error.name!r}, or correct the import."
    if isinstance(error, ImportError) and "circular" in str(error):
        return "let modules import each other in one direction: move shared code into a third module."
    return "correct that line."


def place_of(error: Exception, root: Path) -> Place:
    """Return the innermost line of the project's own code that the error passed through."""
    if isinstance(error, SyntaxError) and error.filename:
        return Place(error.filename, error.lineno or 0)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(root)]
    return Place(own[-1].filename, own[-1].lineno or 0) if own else Place(str(root / "mainspring.toml"), 1)
