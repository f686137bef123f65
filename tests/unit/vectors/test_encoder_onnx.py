"""Encoders in ONNX files: texts alone and together, tokens, what cannot be read, and MiniLM against its own library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kit.encoders import ENCODER_PLACES, ENCODER_WIDTH, ENCODER_WORDS, small_tokenizer, write_encoder
from mainspring.core.errors import Corrupt, Invalid, NotFound
from mainspring.vectors.adapters.encoder_onnx import OnnxEncoder
from mainspring.vectors.encoder_files import distilled, read_encoder
from mainspring.vectors.encoder_graphs import static_graph


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> OnnxEncoder:
    files = read_encoder(write_encoder(tmp_path_factory.mktemp("encoder")))
    return OnnxEncoder(files.model, files.tokenizer, "d", most_tokens=files.most_tokens, name="small")


def test_a_text_has_the_same_vector_bit_for_bit_whatever_stands_beside_it(encoder: OnnxEncoder) -> None:
    chance = np.random.default_rng(4)
    texts = [" ".join(chance.choice(ENCODER_WORDS[3:], chance.integers(1, 14))) for _ in range(40)]
    together = encoder.encode(texts)
    alone = np.concatenate([encoder.encode([text]) for text in texts])
    assert np.array_equal(together, alone)
    assert np.array_equal(encoder.encode(texts[::-1])[::-1], together)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    assert together.shape == (40, encoder.dimension) == (40, ENCODER_WIDTH)


def test_tokens_are_counted_without_the_limits_of_the_file(encoder: OnnxEncoder) -> None:
    assert encoder.count_tokens(["the cat", "the " * 100, ""]) == [2, 100, 0]
    assert encoder.most_tokens == ENCODER_PLACES - 2
    most = "the " * (ENCODER_PLACES - 2)
    assert np.array_equal(*encoder.encode([most, most + "cat away"]))
    assert not np.array_equal(*encoder.encode([most, most.replace("the ", "", 1)]))


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_text_is_refused(encoder: OnnxEncoder, text: str) -> None:
    with pytest.raises(Invalid, match="at 1 of 2 is empty"):
        encoder.encode(["the", text])
    assert encoder.encode([]).shape == (0, ENCODER_WIDTH)


def test_a_static_encoder_is_distilled(tmp_path: Path, encoder: OnnxEncoder) -> None:
    files = distilled(read_encoder(write_encoder(tmp_path)), 4)
    static = OnnxEncoder(files.model, files.tokenizer, "s", most_tokens=None, name="static")
    one, other, both = static.encode(["cat", "mat", "cat mat"])
    assert one.shape == (4,)
    assert both @ one > 0 < both @ other
    assert np.array_equal(*static.encode(["cat mat", "mat cat"]))
    with pytest.raises(Invalid, match="9 components"):
        distilled(read_encoder(tmp_path), 9)


@pytest.mark.parametrize(
    ("config", "said"), [({"model_type": "t5"}, "model type 't5'"), ({"hidden_act": "relu"}, "activation 'relu'")]
)
def test_another_kind_of_encoder_is_refused(tmp_path: Path, config: dict[str, Any], said: str) -> None:
    with pytest.raises(Invalid, match=said):
        read_encoder(write_encoder(tmp_path, **config))


def test_another_pooling_is_refused(tmp_path: Path) -> None:
    write_encoder(tmp_path)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    with pytest.raises(Invalid, match="another pooling"):
        read_encoder(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_or_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    folder = write_encoder(tmp_path)
    (folder / name).write_bytes(b"\xff\x00 no")
    with pytest.raises(Corrupt):
        read_encoder(folder)
    (folder / name).unlink()
    with pytest.raises(NotFound, match=name):
        read_encoder(folder)


def test_what_is_no_encoder_does_not_load() -> None:
    with pytest.raises(Corrupt, match="does not load"):
        OnnxEncoder(b"no", small_tokenizer(), "d", most_tokens=None, name="bad")
    with pytest.raises(Corrupt, match="tokeniser"):
        OnnxEncoder(static_graph(np.eye(3, dtype=np.float32)), b"{}", "d", most_tokens=None, name="bad")
