"""Encoders in ONNX files: texts alone and together, tokens, what cannot be read, and MiniLM against its own library."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kit.encoders import ENCODER_PLACES, ENCODER_WIDTH, ENCODER_WORDS, small_tokenizer, write_encoder
from mainspring.core.errors import Corrupt, Invalid, NotFound
from mainspring.vectors.adapters.encoder_onnx import OnnxEncoder
from mainspring.vectors.encoder_files import PACKAGE, distilled, packaged, read_encoder
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


# all-MiniLM-L6-v2 by sentence-transformers 6.2: the first components of some vectors, and their cosines.
MINILM = {
    "The quick brown fox jumps over the lazy dog.": [0.043934, 0.058934, 0.048178, 0.077548, 0.026745, -0.03763],
    "Disk full": [0.00624, -0.011422, -0.012265, -0.018532, 0.042144, -0.1303],
    "Ein Satz über Züge, 42 Wörter lang?": [0.011317, 0.07636, 0.019821, 0.008609, -0.162073, 0.050663],
    "  Mixed\n\nlines\tand   spaces ": [-0.06706, -0.012853, 0.050553, -0.017989, -0.065432, 0.014388],
    "漢字とかな": [-0.014995, 0.10281, 0.003429, -0.004073, -0.027794, 0.057299],
}
COSINES = [0.085926, 0.104134, -0.058192, 0.132221, 0.129064, 0.098029, 0.11027, 0.094633, 0.214681, 0.018315]


@pytest.mark.slow
@pytest.mark.skipif(find_spec(PACKAGE) is None, reason="the package with MiniLM is not installed")
def test_minilm_has_the_vectors_of_its_library() -> None:
    files = read_encoder(packaged())
    encoder = OnnxEncoder(files.model, files.tokenizer, "m", most_tokens=files.most_tokens, name="minilm")
    vectors = encoder.encode([*MINILM])
    np.testing.assert_allclose(vectors[:, :6], [*MINILM.values()], atol=2e-6)
    np.testing.assert_allclose((vectors @ vectors.T)[np.triu_indices(5, 1)], COSINES, atol=2e-6)
    assert (encoder.dimension, encoder.most_tokens) == (384, 256)
    assert encoder.count_tokens(["The quick brown fox"]) == [4]
