"""A catalog that is sealed in an image: what a gateway serves, as it was when the image was made.

It has no secret: of API keys their HMACs under the installation's pepper, which the place gives. Whoever has the image
knows names and scopes of keys, and routes.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from pathlib import Path

import msgspec

from mainspring.core.errors import Corrupt, NotFound
from mainspring.security.model import ApiKey, Holder
from mainspring.serving.model import Route

SEALED = "sealed"  # scheme of its address
FILE = "serving.json"
_FORMAT = 1


class Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """The routing table, the API keys and the service accounts by name, and the text of `CatalogCopy.further`.

    Attributes:
        revision: Of the routing table in the catalog that was sealed.
    """

    revision: int
    routes: dict[str, Route]
    keys: dict[str, ApiKey]
    services: dict[str, Holder] = {}
    further: str = ""
    format: int = _FORMAT

    def encoded(self) -> str:
        """Return the same text for the same content."""
        return msgspec.json.format(msgspec.json.encode(self, order="sorted"), indent=1).decode() + "\n"

    def digests(self) -> Collection[str]:
        """Return the digests of the bundles that the routes name, ascending."""
        return sorted({arm.digest for route in self.routes.values() for arm in route.arms})


@cache
def read_sealed(path: Path) -> Sealed:
    """Return a sealed catalog.

    Raises:
        NotFound: There is no such file.
        Corrupt: It is none, or of another version of the package.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Sealed)
    except FileNotFoundError:
        raise NotFound(f"There is no sealed catalog {path}.", fix="build the image again.") from None
    except msgspec.DecodeError as error:
        raise Corrupt(f"The sealed catalog {path} cannot be read: {error}.", fix="build the image again.") from None
    if found.format != _FORMAT:
        raise Corrupt(f"The sealed catalog {path} has the format {found.format}.", fix="build the image again.")
    return found
