"""Modules of a project: their files, and their import in the current state of those files.

Modules that import one another are imported together, from bytes that were read before. So every change is noticed,
however soon it follows another, and no class exists in an old and a new version at once. A process has one table of
module names: if two projects have a package of the same name, the one loaded last owns it.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import decode_source, spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from mainspring.core.module_files import Sources

_importing = threading.RLock()  # reentrant: a module may load its own project while it is imported
_files: dict[str, tuple[Path, bytes]] = {}  # files of module names in this process, imported or not yet
_turns: Counter[Path] = Counter()
_roots: set[str] = set()  # entries that were added to the path here


def outdated(found: Sources) -> Sources:
    """Return the modules to import so that all of `found` matches the disk: those not imported yet if all others are
    current; else all, so that no module refers to an old version of another.
    """
    known = {name: file for name, file in found.items() if name in _files or name in sys.modules}
    if all(_files.get(name) == file and _is_ours(sys.modules.get(name)) for name, file in known.items()):
        return {name: file for name, file in found.items() if name not in known}
    return found


def turn(root: Path) -> int:
    """Return a number that changes whenever imported modules of the project were unloaded."""
    return _turns[root]


@contextmanager
def importing(
    root: Path, found: Sources, modules: Collection[str], *, afresh: bool = False, first: bool = True
) -> Iterator[None]:
    """Import modules of the project from the read content, inside the block and afterwards.

    Args:
        found: Result of `sources` for `modules`.
        modules: Modules to import. Modules of other projects or places with these names are unloaded.
        afresh: Whether to unload imported modules of the project in any case, not only outdated ones.
        first: Whether the project's other modules take precedence over all others, including projects opened earlier;
            else they come last.
    """
    with _importing:
        _put_on_path(str(root), first=first)
        if _FINDER not in sys.meta_path:
            sys.meta_path.insert(0, _FINDER)
        fresh = found if afresh else outdated(found)
        _forget_others(root, {name.partition(".")[0] for name in (*found, *modules)})
        if fresh is found:
            _forget_own(root, found)
        _files.update(fresh)
        try:
            yield
        except BaseException:
            _forget_own(root, found)  # no partly imported state remains
            raise


def _forget_others(root: Path, tops: Collection[str]) -> None:
    """Unload modules with these names, or in these packages, that are not the project's."""
    foreign = {top for top in tops if not _inside(_home(sys.modules.get(top)), root)}
    if foreign:
        _forget(name for name in sys.modules if name.partition(".")[0] in foreign)
    _forget(name for name, (path, _) in _files.items() if name.partition(".")[0] in tops and not _inside(path, root))


def _forget_own(root: Path, found: Sources) -> None:
    _turns[root] += 1
    _forget((*found, *(name for name, (path, _) in _files.items() if _inside(path, root))))


def _forget(names: Iterable[str]) -> None:
    for name in list(names):
        sys.modules.pop(name, None)
        _files.pop(name, None)


def _inside(path: Path | None, root: Path) -> bool:
    return path is None or path.resolve().is_relative_to(root.resolve())


def _home(module: ModuleType | None) -> Path | None:
    file = getattr(module, "__file__", None)
    return None if file is None else Path(file)


def _is_ours(module: ModuleType | None) -> bool:
    """Return whether a module was executed from the read content, or is not imported yet."""
    return module is None or isinstance(getattr(module, "__loader__", None), _Loader)


def _put_on_path(place: str, *, first: bool) -> None:
    if not first:
        if place not in sys.path:
            sys.path.append(place)
        return
    if place in sys.path:
        if place not in _roots:  # the user has placed it there
            return
        sys.path.remove(place)
    sys.path.insert(0, place)
    _roots.add(place)


class _Loader(SourceFileLoader):
    """Loader that executes a module from bytes that were read before."""

    def __init__(self, fullname: str, path: Path, content: bytes) -> None:
        super().__init__(fullname, str(path))
        self._content = content

    def get_code(self, _fullname: str) -> CodeType:
        return compile(self._content, self.path, "exec", dont_inherit=True)

    def get_source(self, _fullname: str) -> str:
        return decode_source(self._content)


class _Finder(MetaPathFinder):
    """Finder of modules that were read, also for an import inside a function that runs later."""

    def find_spec(self, fullname: str, _path: Any = None, _target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname not in _files:
            return None
        path, content = _files[fullname]
        package = [str(path.parent)] if path.name == "__init__.py" else None
        return spec_from_file_location(
            fullname, path, loader=_Loader(fullname, path, content), submodule_search_locations=package
        )


_FINDER = _Finder()
