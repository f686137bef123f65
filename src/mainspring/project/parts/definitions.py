"""The definitions of a project, and how a long-running process follows them."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainspring.core.errors import MainspringError
from mainspring.core.settings import Settings
from mainspring.project.parts.cached import cached_property
from mainspring.project.parts.registry import RegistryParts
from mainspring.project.settings import modules_of

if TYPE_CHECKING:
    from mainspring.project.definitions.applied import Applied
    from mainspring.project.definitions.model import Definitions
    from mainspring.training.runs.provenance import ModuleFiles


_FOLLOW_S = 1.0  # maximum delay of a process that follows the definitions

_log = logging.getLogger(__name__)


class DefinitionsParts(RegistryParts):
    """The definitions of a project, and how a long-running process follows them."""

    def __init__(self, settings: Settings, **parts: Any) -> None:
        self._loaded: Definitions | None = parts.pop("definitions", None)
        self._imported: ModuleFiles = {}  # when they were loaded
        self._following = False
        self._applied: tuple[str, float] = ("", 0.0)  # mark of the applied definitions, and the time of its check
        self._expected = False
        super().__init__(settings, **parts)

    @property
    def definitions(self) -> Definitions:
        """The project's modules, loaded and checked."""
        with self._building:  # another thread may have loaded them
            if self._loaded is None:
                if self._following:
                    self._applied = self.applied.mark(), time.monotonic()
                self._loaded = self._load()
            elif self._following and time.monotonic() - self._applied[1] >= _FOLLOW_S:
                self._loaded = self._follow(self._loaded)
            return self._loaded

    def follow_definitions(self) -> None:
        """Let this long-running process follow later `apply`s, instead of the definitions at its start."""
        self._following = True

    def newest_definitions(self) -> Definitions:
        """The definitions, in a process that follows them as the last `apply` left them."""
        with self._building:
            if self._following and self._loaded is not None:
                self._loaded = self._follow(self._loaded)
            return self.definitions

    def _load(self) -> Definitions:
        from mainspring.project.definitions.loading import load_definitions
        from mainspring.training.runs.provenance import module_files

        loaded = load_definitions(self.settings, self._known)
        self._imported = module_files(self.settings.root)
        return loaded

    def _follow(self, loaded: Definitions) -> Definitions:
        """Reload the definitions after an `apply`; if they cannot be loaded, keep the old ones."""
        mark, before = self._applied[0], time.monotonic()
        try:
            mark = self.applied.mark()
            if mark == self._applied[0]:
                return loaded
            self.settings = replace(self.settings, modules=modules_of(self.settings.root))  # one may be new
            return self._load()
        except MainspringError as error:
            _log.warning("The definitions are unchanged: %s", error)
            return loaded
        finally:
            self._applied = mark, before

    @cached_property
    def applied(self) -> Applied:
        from mainspring.project.definitions.applied import Applied

        return Applied(self.engine)

    def expect_models(self) -> None:
        """Allow endpoints of models that are neither declared nor registered yet, because they are about to be
        registered.
        """
        self._expected = True

    def _known(self, model: str) -> bool:
        store = self.settings.tracking
        # Reading must not create a missing store.
        there = store.scheme != "sqlite" or Path(store.path).exists()
        return self._expected or (there and bool(self.versions.all(model)))
