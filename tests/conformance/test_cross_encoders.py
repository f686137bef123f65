"""Cross-encoders keep their contract: one in this process, and one behind a server of `/rerank`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.encoders import write_encoder
from kit.rerank_server import RerankServer, rerank_server
from mainspring.vectors.adapters.cross_onnx import OnnxCrossEncoder
from mainspring.vectors.adapters.cross_service import ServiceCrossEncoder
from mainspring.vectors.conformance_cross import CrossEncoderConformance
from mainspring.vectors.encoder_files import read_encoder


def small(folder: Path) -> OnnxCrossEncoder:
    files = read_encoder(write_encoder(folder, pairs=True))
    return OnnxCrossEncoder(files.model, files.tokenizer, "d", most_tokens=files.most_tokens, name="small")


class Slow:
    """A session whose every run takes long."""

    def __init__(self, session: object) -> None:
        self._session = session

    def run(self, *_: object) -> object:
        time.sleep(3)
        raise AssertionError(self._session)


class TestInProcess(CrossEncoderConformance):
    @pytest.fixture
    def encoder(self, tmp_path: Path) -> OnnxCrossEncoder:
        return small(tmp_path)

    @pytest.fixture
    def stalling(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OnnxCrossEncoder:
        made = small(tmp_path)
        monkeypatch.setattr(made, "_session", Slow(made))
        return made


class TestService(CrossEncoderConformance):
    @pytest.fixture
    def server(self) -> Iterator[RerankServer]:
        with rerank_server() as server:
            yield server

    @pytest.fixture
    def encoder(self, server: RerankServer) -> ServiceCrossEncoder:
        return ServiceCrossEncoder(server.upstream, lambda: "secret", "small")

    @pytest.fixture(params=["silent", "drip"])
    def stalling(self, server: RerankServer, request: pytest.FixtureRequest) -> ServiceCrossEncoder:
        server.wait_s, server.drip = (30.0, False) if request.param == "silent" else (0.0, True)
        return ServiceCrossEncoder(server.upstream, str, "small")
