"""A project's own policies: the files `policies/*.cedar`, which running processes follow."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from mainspring.core.errors import Invalid, MainspringError
from mainspring.core.files import write_atomic
from mainspring.security.policy import Policies

POLICIES = "policies"  # folder of a project
_LOOK_S = 1.0  # between two looks at the files
_log = logging.getLogger(__name__)


def read_policies(folder: Path, *, required: bool = False) -> dict[str, str]:
    """Return the text of each policy file by name.

    Args:
        required: Whether the folder must be there; else a missing one has no files.

    Raises:
        Invalid: The folder cannot be listed, or a file not read as text.
    """
    found = {}
    for path in _listed(folder, required=required):
        try:
            found[path.name] = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise Invalid(f"{path.name} cannot be read: {error}.") from error
    return found


def _listed(folder: Path, *, required: bool) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return sorted(folder / each.name for each in entries if each.name.endswith(".cedar"))
    except FileNotFoundError as error:
        if not required:
            return []
        raise Invalid(
            f"The folder {folder.name}/ is missing.", fix="bring it back; an empty folder means no policies."
        ) from error
    except OSError as error:
        raise Invalid(f"The folder {folder.name}/ cannot be listed: {error}.") from error


class PolicyFiles:
    """Policies of a folder. Where a file is not valid, or the folder is gone, those that were valid last stay in force.

    Args:
        kept: File that keeps the last valid ones, for a start while the files are not.

    Raises:
        Invalid: A file is not valid, and none were valid before.
    """

    def __init__(self, folder: Path, kept: Path, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._kept = kept
        self._monotonic = monotonic
        self._looking = threading.Lock()
        self._stamp = self._stamped()
        self._at = monotonic()
        self.trouble: str | None = None  # why the files are not in force
        try:
            self._policies = self._read(required=self._has_kept())
        except Invalid as error:
            self._policies = self._last(error)
            self._say(error)

    def current(self) -> Policies:
        if self._monotonic() - self._at >= _LOOK_S and self._looking.acquire(blocking=False):
            try:
                self._at = self._monotonic()
                self._look()
            finally:
                self._looking.release()
        return self._policies

    def _look(self) -> None:
        stamp = self._stamped()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._policies, self.trouble = self._read(required=bool(self._policies.own)), None
            _log.warning("The policies in %s are in force: %s.", self._folder, ", ".join(self._policies.own) or "none")
        except Invalid as error:
            self._say(error)

    def _read(self, *, required: bool) -> Policies:
        policies = Policies(read_policies(self._folder, required=required))
        if policies.own or self._kept.exists():
            self._keep(policies.own)
        return policies

    def _keep(self, own: Mapping[str, str]) -> None:
        content = msgspec.json.encode(own)
        try:
            if not self._kept.exists() or self._kept.read_bytes() != content:
                write_atomic(self._kept, content)
        except (MainspringError, OSError) as error:
            _log.warning("The policies were not saved: %s", error)

    def _has_kept(self) -> bool:
        try:
            return bool(msgspec.json.decode(self._kept.read_bytes()))
        except FileNotFoundError:
            return False
        except (OSError, msgspec.DecodeError):
            return True

    def _last(self, error: Invalid) -> Policies:
        try:
            return Policies(msgspec.json.decode(self._kept.read_bytes(), type=dict[str, str]))
        except (OSError, msgspec.DecodeError):
            raise error from None

    def _say(self, error: Invalid) -> None:
        self.trouble = str(error)
        _log.error("The policies in %s are not valid, and those before stay in force: %s", self._folder, error)

    def _stamped(self) -> tuple[tuple[str, int, int], ...]:
        try:
            paths = _listed(self._folder, required=True)
        except Invalid as error:
            return ((str(error), 0, 0),)
        found = []
        for path in paths:
            try:
                stat = path.stat()
            except OSError:
                continue
            found.append((path.name, stat.st_mtime_ns, stat.st_size))
        return tuple(found)
