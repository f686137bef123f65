"""Parts of a warehouse's address: `scheme://[user@]place/part/part?option=value`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from mainspring.core.errors import Invalid
from mainspring.core.nearest import guess
from mainspring.core.object_store_url import check_encrypted
from mainspring.core.settings import Url

IN_CLEAR = "in_clear"  # option of every address: the network is trusted
_SERVERS = ("endpoint", "storage")  # options that are addresses themselves


@dataclass(frozen=True, slots=True)
class Place:
    """An address in its parts: the server or project, the user, the names below it, and the options."""

    server: str
    user: str
    names: tuple[str, ...]
    options: Mapping[str, str]

    @classmethod
    def parse(cls, url: Url, names: int, options: Collection[str], form: str) -> Place:
        """Parse an address with so many names.

        Args:
            options: Names of options, beside `endpoint`: another address of the server, as `https://host:port`. One
                named `storage` is such an address, too.
            form: A valid address, for messages.

        Raises:
            Invalid: A part is missing, an option is unknown, or data would go in clear to another machine.
        """
        parts = urlsplit(url.text)
        user, _, server = parts.netloc.rpartition("@")
        found = tuple(unquote(each) for each in parts.path.split("/")[1:])
        given, fix = dict(parse_qsl(parts.query)), f"write {form}."
        in_clear = given.pop(IN_CLEAR, "") == "true"
        if not server or len(found) != names or not all(found):
            raise Invalid(f"{url.shown} is not the address of a warehouse.", fix=fix)
        known = {*options, "endpoint"}
        for unknown in sorted(given.keys() - known):
            near = guess(unknown, known)
            raise Invalid(f"{url.shown} has the unknown option {unknown!r}.", fix=f"{near}{fix}")
        for name in _SERVERS:
            check_encrypted(url.shown, given.get(name, ""), in_clear=in_clear)
        return cls(unquote(server), unquote(user), found, given)
