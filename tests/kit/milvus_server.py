"""A real Milvus for tests: the server of the Python package `milvus`, with passwords and client certificates."""

from __future__ import annotations

import io
import os
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import urlencode

import pyarrow.parquet as pq
import pytest

from kit.certificates import Authority
from kit.servers import Server, running
from kit.waiting import free_port
from mainspring.core.locks import FileLocks
from mainspring.core.settings import Url

PASSWORD = "Milvus"  # of the user `root` of a new server
# Times are short: a test waits for what takes a server in use minutes or hours.
_CONFIGURATION = {
    "queryCoord.checkInterval": 60, "queryCoord.distPullInterval": 60, "queryCoord.checkHandoffInterval": 100,
    "proxy.timeTickInterval": 30, "dataCoord.gc.interval": 1, "dataCoord.gc.dropTolerance": 1,
}  # fmt: skip
_PARQUET = b"PAR1"
_MORE = {"checkSegmentInterval": 60, "checkChannelInterval": 60, "checkIndexInterval": 100}


class MilvusServer(Server):
    """Keeps its data over a restart."""

    programs = ("python",)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.authority = Authority(folder)
        own, self.client = self.authority.issue("milvus"), self.authority.issue("client")
        with patch.object(sys, "argv", ["milvus"]):
            import milvus
        options = {
            "data_dir": str(folder), "proxy_port": self.port, "authorization_enabled": True, "tls_mode": 2,
            "server_pem_path": str(own.cert), "server_key_path": str(own.key),
            "ca_pem_path": str(self.authority.certificate),
        }  # fmt: skip
        made = milvus.MilvusServerConfig(**options)
        for name in (each for each in made.configurable_items if each.endswith("_port") and each != "proxy_port"):
            made.update(**{name: free_port()})
        for name, value in (*options.items(), *_CONFIGURATION.items()):
            made.set(name, value)
        made.resolve()
        written = folder / "configs" / "milvus.yaml"
        more = "".join(f"  {name}: {value}\n" for name, value in _MORE.items())
        written.write_text(re.sub("(?m)^queryCoord:\n", f"queryCoord:\n{more}", written.read_text()))
        self._programs = _unpacked(milvus)

    def command(self) -> list[str]:
        environment = {
            "DEPLOY_MODE": "STANDALONE", "METRICS_PORT": free_port(), "MILVUS_RUN_DIR": self.folder / "run",
            "MILVUSCONF": self.folder / "configs", "LD_LIBRARY_PATH": self._programs,
        }  # fmt: skip
        given = [f"{name}={value}" for name, value in environment.items()]
        return ["env", "-C", str(self.folder), *given, str(self._programs / "milvus"), "run", "standalone"]

    def answers(self) -> bool:
        from mainspring.core.errors import Unavailable
        from mainspring.vectors.adapters.milvus import MilvusVectorStore

        with suppress(OSError, Unavailable), socket.create_connection(("127.0.0.1", self.port), 1):
            store = MilvusVectorStore(self.url, schema="ready")
            store.names()
            store.close()
            return True
        return False

    @property
    def url(self) -> Url:
        return self.as_user("root", PASSWORD)

    def as_user(self, user: str, password: str, **more: str) -> Url:
        files = {
            "ca": self.authority.certificate, "cert": self.client.cert, "key": self.client.key,
        } | more  # fmt: skip
        return Url(f"milvuss://{user}:{password}@127.0.0.1:{self.port}?{urlencode(files)}")

    def stored(self) -> Iterator[bytes]:
        """Read all files of its segments, which its log of messages and its metadata are not; values are unpacked."""
        for path in (self.folder / "data").rglob("*"):
            if path.is_file() and not {"rocksmq", "rocksmq_meta_kv", "etcd.data"} & set(path.parts):
                with suppress(FileNotFoundError):  # deleted meanwhile
                    content = path.read_bytes()
                    begin, end = content.find(_PARQUET), content.rfind(_PARQUET)
                    if begin < end:
                        table = pq.read_table(io.BytesIO(content[begin : end + len(_PARQUET)]))
                        content += repr(table.to_pydict()).encode()
                    yield content


def _unpacked(milvus: Any) -> Path:
    """Return the folder of the server's programs, which take seconds to unpack: one for all runs of tests."""
    folder = Path(tempfile.gettempdir()) / f"mainspring-milvus-{milvus.__version__}-{os.getuid()}"
    if not folder.is_dir():
        made = Path(tempfile.mkdtemp(prefix="mainspring-milvus-"))
        milvus._initialize_data_files(str(made))
        try:
            made.rename(folder)
        except OSError:  # another was faster
            shutil.rmtree(made)
    return folder / "bin"


@pytest.fixture(scope="module")
def milvus_server() -> Iterator[MilvusServer]:
    """One at a time on a machine: two would share their lock and a port of their metadata."""
    if find_spec("milvus") is None:
        pytest.skip("the package milvus is not installed: there is none for this machine")
    with FileLocks(Path(tempfile.gettempdir())).hold("mainspring-milvus", wait_s=300), running(MilvusServer) as server:
        yield server
