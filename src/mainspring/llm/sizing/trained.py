"""A language model as its training takes memory and time, computed from its architecture.

Activations are those that PyTorch keeps for the backward pass, counted as in "Reducing Activation Recomputation in
Large Transformer Models" (arXiv:2205.05198, section 4.1), with attention that does not keep its scores (FlashAttention,
arXiv:2205.14135) and without dropout. A gated feed-forward part keeps its gate, the activated gate, the other factor
and their product. As in Hugging Face's models, its norms (RMSNorm) are not fused and keep what they scale; keys and
values that several heads share are copied for each.
"""

from __future__ import annotations

from math import gcd
from pathlib import Path

from mainspring.core.accelerators import read_fields
from mainspring.core.errors import Invalid
from mainspring.llm.sizing.architecture import Architecture
from mainspring.llm.sizing.config import architecture
from mainspring.llm.sizing.models import read_model
from mainspring.training.planning.model import Model, Optimiser, Part, Precision

_FIELDS = {
    "layers": "num_hidden_layers", "hidden": "hidden_size", "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads", "width": "intermediate_size", "vocabulary": "vocab_size",
}  # fmt: skip
_MOST_TOKENS = 1 << 24


def read_described(text: str) -> tuple[Architecture, int]:
    """Return a described model and the tokens of a sequence, 0 if it says none.

    Args:
        text: What `read_model` takes; or a TOML file with `layers`, `hidden`, `heads`, `width`, `vocabulary` and, if
            they differ from the usual, `kv_heads`, `model_type` and `sequence`.

    Raises:
        NotFound: Neither a file nor a known family.
        Invalid: The description is damaged, incomplete, or of a kind that is not known.
    """
    path = Path(text)
    if path.suffix != ".toml" or not path.is_file():
        return read_model(text), 0
    fields = dict(read_fields(path))
    sequence = fields.pop("sequence", 0)
    if type(sequence) is not int or not 0 <= sequence <= _MOST_TOKENS:
        raise Invalid(f"{path} has sequence={sequence!r}.", fix=f"give tokens, at most {_MOST_TOKENS:,}.")
    named = {_FIELDS.get(name, name): value for name, value in fields.items()}
    return architecture({"model_type": "llama", **named}, path.stem), sequence


def trained(model: Architecture, tokens: int, precision: Precision, optimiser: Optimiser) -> Model:
    """Return a model whose rows are sequences of `tokens` tokens, all of its weights trained.

    Raises:
        Invalid: The number of tokens is impossible.
    """
    if not 0 < tokens <= _MOST_TOKENS:
        raise Invalid(f"A sequence has {tokens} tokens.", fix=f"give 1 to {_MOST_TOKENS:,}.")
    width, residual = precision.compute, precision.weight if precision.copied else precision.compute
    embeddings = Part(
        "embeddings", model.embeddings, model.embeddings, cut=1.0, saved=16.0 * tokens,
        working=float(tokens * model.hidden * residual), entrance=8.0 * tokens, sums=1,
    )  # fmt: skip
    parameters = model.head + model.last_norm
    matrix = model.head or model.vocabulary * model.hidden
    head = Part(
        "head",
        parameters,
        parameters,
        cut=model.head / parameters if parameters else 0.0,
        saved=float(tokens * model.hidden * (residual * _norm_inputs(model) + width)),
        fixed=float(matrix * precision.copied),
        working=float(tokens * (model.vocabulary * width + model.hidden * residual)),
        entrance=tokens * model.hidden * float(residual),
        flops=2.0 * tokens * matrix,
        sums=1,
    )
    logits = float(tokens * model.vocabulary)
    # The logarithms of probabilities in 32 bits are kept; then their gradient and that of the logits are there.
    wide = max(4, width)
    loss = Part("loss", 0, 0, saved=wide * logits, working=2 * wide * logits, entrance=width * logits, sums=1)
    blocks = _blocks(model, tokens, width, residual, precision.copied)
    return Model(
        name=model.name,
        parts=(embeddings, *blocks, head, loss),
        precision=precision,
        optimiser=optimiser,
        row=f"sequence of {tokens:,} tokens",
        heads=gcd(model.attention.heads, model.attention.kv_heads),
        largest=max(matrix, model.embeddings),
        notes=_notes(model),
    )


def _norm_inputs(model: Architecture) -> int:
    """Tensors that a norm keeps: its input, and without a fused kernel the scaled one."""
    return 2 if model.feed_forward.matrices == 3 else 1


def _notes(model: Architecture) -> tuple[str, ...]:
    found = ["Attention keeps no scores (scaled_dot_product_attention's fused kernels); no dropout."]
    if model.tied:
        found.append("Embeddings and head are one matrix: the ends of a pipeline would each have it.")
    if model.feed_forward.experts:
        found.append("Experts are cut like other matrices; routers are taken to choose evenly.")
    return (*found, *model.notes)


def _blocks(model: Architecture, tokens: int, width: int, residual: int, copied: int) -> tuple[Part, ...]:
    attention, parts, hidden = model.attention, model.feed_forward, model.hidden
    found = model.parameters()
    whole = sum(found.get(kind, 0) for kind in ("attention", "feed-forward", "experts", "routers"))
    layer = round(whole / model.layers) + model.norms
    extras = attention.extras + parts.extras + model.norms
    cut = max(0.0, 1 - extras / layer)
    head = model.vocabulary * hidden if model.tied else found.get("head", 0)
    reaches = tokens if attention.bidirectional else tokens / 2  # the mean of a triangle
    operations = 2.0 * (model.computed() - head) + model.attended(reaches, from_latent=False)
    per_head = attention.head_dim + attention.value_dim
    attended = 2 * attention.heads * per_head  # queries and outputs, keys and values
    wide = parts.active * parts.expert_width + parts.shared_width if parts.experts else parts.width
    factors = 4 if parts.matrices == 3 else 2
    spread = width * (attended + factors * wide) + 4 * attention.heads  # and a normaliser of each head in 32 bits
    inputs = (1 + max(1, parts.active)) * hidden * width
    kept = 2 * _norm_inputs(model) * hidden * residual + inputs
    working = factors * wide * width + 2 * hidden * residual
    block = Part(
        "layer", layer, layer, cut=cut,
        saved=float(tokens * (spread + kept)),
        saved_cut=spread / (spread + kept),
        fixed=float(layer * cut * copied),
        working=float(tokens * working),
        entrance=float(tokens * hidden * residual),
        flops=tokens * operations / model.layers,
        attention=tokens * model.attended(reaches, from_latent=False) / model.layers,
        sums=2, block=True,
    )  # fmt: skip
    return (block,) * model.layers
