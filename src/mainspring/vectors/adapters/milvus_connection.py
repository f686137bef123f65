"""Connection to a server of Milvus, with its errors told as those of an index."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from mainspring.core.errors import Invalid, MissingExtra, StorageFull, Unavailable, causes
from mainspring.core.settings import Url
from mainspring.vectors.model import no_index

T = TypeVar("T")

LEAST_VERSION = (2, 3)  # with upserts and deletions by an expression; the tests run with 2.3
PORT = 19530
CALL_S = 30.0
_CONNECT_S = 5.0
_FILES = ("ca", "cert", "key")


def _tls(name: str, given: dict[str, str]) -> dict[str, Any]:
    """Return the client's options of TLS.

    Raises:
        Invalid: An option is unknown, a file is missing, or one of certificate and key.
    """
    unknown = sorted(set(given) - {*_FILES, "server_name"})
    if unknown:
        raise Invalid(f"The address {name} has the option {unknown[0]!r}.", fix="write ca, cert, key, server_name.")
    for option in _FILES:
        if option in given and not Path(given[option]).is_file():
            raise Invalid(f"{option}={given[option]} of {name} is no file.", fix="correct its path.")
    made = {"secure": True, "server_name": given.get("server_name", "")}
    if "cert" not in given and "key" not in given:
        return made | {"server_pem_path": given.get("ca", "")}
    if not all(each in given for each in _FILES):  # else the client shows nothing, and says nothing of it
        raise Invalid(f"The address {name} has a part of a client's certificate.", fix="write ca, cert and key.")
    return made | {"ca_pem_path": given["ca"], "client_pem_path": given["cert"], "client_key_path": given["key"]}


_NO_COLLECTION = 100  # codes of Milvus's errors


class Server:
    """Connection to a server, made at the first call and once in each process."""

    def __init__(self, url: Url, least: tuple[int, int]) -> None:
        self._least = least
        self._name = url.shown
        parts = urlsplit(url.text)
        given = dict(parse_qsl(parts.query, keep_blank_values=True))
        secure = parts.scheme == "milvuss"
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or "localhost"
        self._options = {
            "uri": f"{'https' if secure else 'http'}://{host}:{parts.port or PORT}",
            "user": unquote(parts.username or ""),
            "password": unquote(parts.password or ""),
            "db_name": parts.path.strip("/"),
            "timeout": _CONNECT_S,
            **(_tls(self._name, given) if secure else {}),
        }
        self._client: Any = None
        self._process = 0
        self._connecting = threading.Lock()

    def call(self, work: Callable[[Any], T], missing: str = "") -> T:
        """Return the result of work with the client.

        Raises:
            NotFound: There is no collection of the index `missing`.
            Unavailable: The server does not answer, or refuses.
        """
        import grpc
        from pymilvus.exceptions import MilvusException

        try:
            return work(self._connected())
        except MilvusException as error:
            if missing and error.code == _NO_COLLECTION:
                raise no_index(missing) from error
            raise self._translated(error) from error
        except grpc.RpcError as error:
            raise self._translated(error) from error

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _connected(self) -> Any:
        with self._connecting:
            if self._client is None or self._process != os.getpid():
                self._client, self._process = self._connect(), os.getpid()
            return self._client

    def _connect(self) -> Any:
        try:
            from pymilvus import MilvusClient
        except ModuleNotFoundError as error:
            raise MissingExtra("Indexes of vectors on Milvus", "milvus") from error
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # each error is raised, and told there
        client = MilvusClient(**self._options, dedicated=True)  # else it may be one that shows another certificate
        version = str(client.get_server_version(timeout=CALL_S))
        known = re.match(r"v?(\d+)\.(\d+)", version)
        if known and tuple(map(int, known.groups())) < self._least:
            client.close()
            raise Unavailable(
                f"Milvus {version} on {self._name} is older than {'.'.join(map(str, self._least))}.",
                fix="run a newer one.",
            )
        return client

    def _translated(self, error: Exception) -> Exception:
        told = str(getattr(error, "message", "") or error)
        if "quota" in told or ("disk" in told and "exceed" in told):
            return StorageFull(f"No space left on {self._name}: {told}.", fix="give Milvus more disk or quota.")
        fix = "start Milvus, or correct the address in the profile."
        if any("unauthenticated" in str(each).lower() or "auth check" in str(each) for each in causes(error)):
            fix = "correct the user or the password in the address."
        elif "database" in told:
            fix = "create the database there, or correct its name in the address."
        return Unavailable(f"The indexes on {self._name} do not answer: {told}.", fix=fix)
