"""A target and records in memory, for tests."""

from __future__ import annotations

from collections.abc import Sequence

from mainspring.core.errors import Conflict
from mainspring.core.ids import check_id
from mainspring.deploy.targets.model import ABSENT, Deployment, Made, Piece, Seen


class MemoryTarget:
    """Keeps pieces in a dictionary."""

    def __init__(self) -> None:
        self.there: dict[str, bytes] = {}
        self.others: set[str] = set()
        self.lacks: list[str] = []

    def render(self, deployment: Deployment) -> list[Piece]:
        for service in deployment.services:
            check_id(service.endpoint, "endpoint")
        pieces = [Piece(id=f"Service/{each.endpoint}", content=repr(each).encode()) for each in deployment.services]
        ids = tuple(each.id for each in pieces)
        env = sorted(deployment.env.items())
        content = repr((deployment.replicas, deployment.memory, deployment.worker, env)).encode()
        return [*pieces, Piece(id="Gateway/gateway", content=content, after=ids)]

    def problems(self, pieces: Sequence[Piece]) -> list[str]:
        return self.lacks if pieces else []

    def look(self, ids: Sequence[str]) -> list[Seen]:
        return [self._seen(id) for id in ids]

    def _seen(self, id: str) -> Seen:
        if id not in self.there:
            return ABSENT
        return Seen("ready", Piece(id=id, content=self.there[id]).digest)

    def make(self, piece: Piece) -> None:
        if piece.id in self.others:
            raise Conflict(f"{piece.id} is somebody else's.")
        self.there[piece.id] = piece.content

    def remove(self, id: str) -> None:
        self.there.pop(id, None)


class MemoryRecords:
    """Keeps records in a dictionary."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, Made]] = {}

    def targets(self) -> list[str]:
        return sorted(name for name, kept in self._kept.items() if kept)

    def made(self, target: str) -> list[Made]:
        return sorted(self._kept.get(target, {}).values(), key=lambda each: (each.position, each.piece))

    def keep(self, target: str, records: Sequence[Made]) -> None:
        self._kept.setdefault(target, {}).update({each.piece: each for each in records})

    def forget(self, target: str, pieces: Sequence[str]) -> None:
        for piece in pieces:
            self._kept.get(target, {}).pop(piece, None)
