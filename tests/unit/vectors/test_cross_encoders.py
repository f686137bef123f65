"""Cross-encoders: the files that they are read from, and servers that refuse and lie."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kit.depth import deep
from kit.encoders import ENCODER_PLACES, small_tokenizer, write_encoder
from kit.rerank_server import RerankServer, rerank_server, score
from mainspring.core.errors import Corrupt, Denied, Invalid, MainspringError, NotFound, Unavailable
from mainspring.core.settings import UpstreamServer
from mainspring.project.backends.retrieval import registered_cross_encoder, registered_encoder, service_cross_encoder
from mainspring.registry.bundles import MODEL, TOKENIZER
from mainspring.vectors.adapters.cross_onnx import OnnxCrossEncoder
from mainspring.vectors.adapters.cross_service import ServiceCrossEncoder
from mainspring.vectors.declaring import Reranker
from mainspring.vectors.encoder_files import read_encoder
from mainspring.vectors.encoder_graphs import static_graph


@pytest.fixture
def server() -> Iterator[RerankServer]:
    with rerank_server() as made:
        yield made


def test_a_cross_encoder_is_read_from_its_weights_or_its_graph(tmp_path: Path) -> None:
    written = read_encoder(write_encoder(tmp_path, pairs=True))
    assert (written.pairs, written.most_tokens) == (True, ENCODER_PLACES)
    assert [*written.golden["inputs"]] == ["input_ids", "attention_mask", "token_type_ids"]
    assert 1 in written.golden["inputs"]["token_type_ids"][0]
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").write_bytes(written.model)
    (tmp_path / "model.safetensors").unlink()
    config = {"model_type": "xlm-roberta", "architectures": ["XLMRobertaForSequenceClassification"]}
    (tmp_path / "config.json").write_text(json.dumps({**config, "id2label": {"0": "x"}, "max_position_embeddings": 14}))
    exported = read_encoder(tmp_path)
    assert (exported.model, exported.most_tokens, exported.pairs) == (written.model, 12, True)
    (tmp_path / "onnx" / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(Corrupt, match="does not load"):
        read_encoder(tmp_path)
    (tmp_path / "onnx" / "model.onnx").unlink()
    with pytest.raises(NotFound, match=r"model\.onnx"):
        read_encoder(tmp_path)


def test_one_of_several_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="has 2 classes"):
        read_encoder(write_encoder(tmp_path, pairs=True, id2label={"0": "no", "1": "yes"}))


def test_a_bundle_is_taken_for_what_it_is(tmp_path: Path) -> None:
    files = read_encoder(write_encoder(tmp_path, pairs=True))
    content = {MODEL: files.model, TOKENIZER: files.tokenizer}

    def bundle(**extra: Any) -> Any:
        return SimpleNamespace(files=content, digest="d", manifest=SimpleNamespace(extra={"most_tokens": 9, **extra}))

    assert registered_cross_encoder(bundle(pairs=True), "judge").score("cat", ["mat"], within_s=9)
    with pytest.raises(Corrupt, match="is no cross-encoder"):
        registered_cross_encoder(bundle(), "judge")
    with pytest.raises(Corrupt, match="is a cross-encoder"):
        registered_encoder(bundle(pairs=True), "small")
    with pytest.raises(Corrupt, match="inputs"):
        OnnxCrossEncoder(static_graph(np.eye(3, dtype=np.float32)), small_tokenizer(), "d", most_tokens=9, name="bad")


@deep
def test_scores_are_those_of_transformers(tmp_path: Path) -> None:
    import torch
    from transformers import BertForSequenceClassification

    files = read_encoder(write_encoder(tmp_path, pairs=True, intermediate_size=12, hidden_size=8, num_hidden_layers=1,
                                       vocab_size=14, type_vocab_size=2))  # fmt: skip
    made = OnnxCrossEncoder(files.model, files.tokenizer, "d", most_tokens=files.most_tokens, name="small")
    theirs = BertForSequenceClassification.from_pretrained(tmp_path).eval()
    inputs = {name: torch.tensor(rows) for name, rows in files.golden["inputs"].items()}
    with torch.no_grad():
        wanted = theirs(**inputs).logits[:, 0].tolist()
    texts = ["The quick brown fox jumps over the lazy dog.", "Disk full", "Ein Satz über Züge, 42 Wörter lang?"]
    assert made.score(texts[0], texts[:1], within_s=9)[0] == pytest.approx(wanted[0], abs=1e-5)


def test_a_service_gets_the_texts_once_and_its_scores_are_in_their_order(server: RerankServer) -> None:
    encoder = ServiceCrossEncoder(server.upstream, lambda: "secret", "judge-v1")
    texts = ["one", "two", "three"]
    assert encoder.score("which", texts, within_s=9) == [score("which", text) for text in texts]
    body = {"model": "judge-v1", "query": "which", "documents": texts, "top_n": 3}
    assert server.asked == [("/v1/rerank", "Bearer secret", body)]


STATUSES = [(401, Denied), (403, Denied), (404, Invalid), (422, Invalid), (429, Unavailable), (500, Unavailable)]


@pytest.mark.parametrize(("status", "kind"), STATUSES)
def test_a_status_is_told_once_without_the_key(server: RerankServer, status: int, kind: type[MainspringError]) -> None:
    server.status = status
    with pytest.raises(kind, match=f"status {status}") as failed:
        ServiceCrossEncoder(server.upstream, lambda: "secret", "judge").score("a", ["b"], within_s=9)
    assert "secret" not in str(failed.value)
    assert len(server.asked) == 1


LIES: dict[str, Callable[[list[Any]], Any]] = {
    "too few": lambda found: found[:1],
    "twice the same": lambda found: [found[0], found[0]],
    "another index": lambda found: [{**each, "index": each["index"] + 1} for each in found],
    "no number": lambda found: [{**each, "relevance_score": float("nan")} for each in found],
    "no list": lambda _found: "nothing",
}


@pytest.mark.parametrize("lie", LIES)
def test_an_answer_that_is_none_is_unavailable(server: RerankServer, lie: str) -> None:
    server.change = LIES[lie]
    with pytest.raises(Unavailable, match="'judge'"):
        ServiceCrossEncoder(server.upstream, str, "m").score("a", ["b", "c"], within_s=9)


def test_a_service_is_named_by_the_profile(server: RerankServer) -> None:
    settings: Any = SimpleNamespace(profile="local", upstreams={"JUDGE": server.upstream})
    assert service_cross_encoder(settings, Reranker("m", service="judge")).score("a", ["b"], within_s=9)
    with pytest.raises(NotFound, match=r"llm\.upstreams\.lost"):
        service_cross_encoder(settings, Reranker("m", service="lost"))
    settings.upstreams["JUDGE"] = UpstreamServer("judge", "http://127.0.0.1:1", protocol="anthropic")
    with pytest.raises(Invalid, match="reranker 'm' speaks 'anthropic'"):
        service_cross_encoder(settings, Reranker("m", service="judge"))


@pytest.mark.parametrize("timeout", ["0s", "2m", -1])
def test_a_timeout_that_is_none_is_refused(timeout: str | int) -> None:
    with pytest.raises(Invalid):
        Reranker("judge", timeout=timeout)
