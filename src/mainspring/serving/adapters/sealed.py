"""Routes and API keys of a sealed catalog. Nothing is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Never

from mainspring.core.errors import Invalid
from mainspring.security.model import ApiKey
from mainspring.serving.model import Route
from mainspring.serving.plane.sealed_catalog import read_sealed


class SealedRoutes:
    """`Routes` of a sealed catalog."""

    def __init__(self, path: Path) -> None:
        self._sealed = read_sealed(path)

    def revision(self) -> int:
        return self._sealed.revision

    def current(self) -> Mapping[str, Route]:
        return self._sealed.routes

    def publish(self, routes: Sequence[Route], *, after: int | None = None) -> int:  # noqa: ARG002
        _refuse()


class SealedKeys:
    """`KeyStore` of a sealed catalog."""

    def __init__(self, path: Path) -> None:
        self._keys = read_sealed(path).keys

    def add(self, key: ApiKey) -> None:  # noqa: ARG002
        _refuse()

    def find(self, key_id: str) -> ApiKey | None:
        return self._keys.get(key_id)

    def all(self) -> list[ApiKey]:
        return sorted(self._keys.values(), key=lambda key: (key.created_at, key.id))

    def mark(self) -> str:
        return "sealed"

    def revoke(self, key_id: str, at: int) -> None:  # noqa: ARG002
        _refuse()


def _refuse() -> Never:
    raise Invalid(
        "The catalog is sealed in an image, and cannot be changed.",
        fix="change the installation, and build the image again.",
    )
