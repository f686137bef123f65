"""A target whose pieces are files in a folder: what others then install, apply or look at."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path, PurePosixPath

import msgspec

from mainspring.core.errors import Conflict, Corrupt, Invalid
from mainspring.core.files import write_atomic
from mainspring.deploy.targets.model import ABSENT, FILE, Piece, Seen

LISTED = ".mainspring-deployed.json"  # names of the files that deployments made
_MODE = 0o644


def file(name: str, text: str, *, after: Sequence[str] = ()) -> Piece:
    """Return the piece that is a text file of the folder."""
    return Piece(id=f"{FILE}/{name}", content=text.encode(), after=tuple(after))


class Folder:
    """Files of one target in a folder, which is made when it is needed. Files that others wrote there are not touched.

    The list of own files is written before a file is made and after one is removed, so it has all of them at any time.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def look(self, ids: Sequence[str]) -> list[Seen]:
        own = self._own()
        return [self._seen(id, own) for id in ids]

    def _seen(self, id: str, own: set[str]) -> Seen:
        try:
            content = self._place(id).read_bytes()
        except FileNotFoundError:
            return ABSENT
        return Seen("ready", sha256(content).hexdigest() if id in own else "")

    def make(self, piece: Piece) -> None:
        own, place = self._own(), self._place(piece.id)
        if piece.id not in own:
            if place.exists():
                raise Conflict(
                    f"{place} is there, and no deployment made it.", fix="move it away, or name another folder."
                )
            self._list({*own, piece.id})
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(place, piece.content, mode=_MODE)

    def remove(self, id: str) -> None:
        own, place = self._own(), self._place(id)
        if id not in own:
            return
        place.unlink(missing_ok=True)
        parent = place.parent
        while parent != self.path and not any(parent.iterdir()):
            parent.rmdir()
            parent = parent.parent
        self._list(own - {id})

    def _place(self, id: str) -> Path:
        name = PurePosixPath(id.partition("/")[2])
        if not name.parts or name.is_absolute() or ".." in name.parts:
            raise Invalid(f"{id!r} is no file of the folder {self.path}.", fix="rename the target or the endpoint.")
        return self.path / name

    def _own(self) -> set[str]:
        try:
            return set(msgspec.json.decode((self.path / LISTED).read_bytes(), type=list[str]))
        except FileNotFoundError:
            return set()
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise Corrupt(
                f"{self.path / LISTED} is damaged: {error}.", fix="remove the folder, and deploy again."
            ) from error

    def _list(self, own: set[str]) -> None:
        listed = self.path / LISTED
        if own:
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomic(listed, msgspec.json.format(msgspec.json.encode(sorted(own))) + b"\n", mode=_MODE)
        else:
            listed.unlink(missing_ok=True)
            if self.path.is_dir() and not any(self.path.iterdir()):
                self.path.rmdir()
