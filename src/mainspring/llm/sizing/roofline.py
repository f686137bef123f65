"""Expected speed by a roofline (Williams et al., CACM 52(4), 2009): computing, memory and links, each at an efficiency.

A step of decoding reads the weights that its tokens use once and the cache of each sequence, multiplies, and sums over
the GPUs of a stage twice a layer. Prompts are computed in chunks. The rates of a datasheet are not reached: an estimate
uses the share that engines were measured to reach, and its interval the shares of a poor and of a good day.
"""

from __future__ import annotations

from dataclasses import dataclass

from mainspring.llm.sizing.layout import CHUNK, Sized
from mainspring.llm.sizing.precision import CACHE_BITS


@dataclass(frozen=True, slots=True)
class Efficiency:
    """Shares of the datasheet's rates, and times that no rate explains (seconds)."""

    compute: float
    memory: float
    link: float
    per_sum: float  # latency of a sum over the GPUs of a node
    per_step: float  # scheduling and sampling
    per_layer: float  # gaps between kernels
    per_sequence: float  # scheduling, sampling and detokenising of one sequence in a step


POOR = Efficiency(0.35, 0.45, 0.35, 40e-6, 6e-3, 30e-6, 12e-6)
USUAL = Efficiency(0.55, 0.70, 0.55, 20e-6, 2e-3, 12e-6, 5e-6)
GOOD = Efficiency(0.75, 0.90, 0.80, 8e-6, 0.5e-3, 3e-6, 1e-6)


@dataclass(frozen=True, slots=True)
class Speed:
    """Speed of one replica.

    Attributes:
        step: Seconds from one token of a sequence to its next.
        first: Seconds from a prompt that comes alone to its first token.
        decode, prefill: Tokens a second, of all sequences together.
    """

    step: float
    first: float
    decode: float
    prefill: float


def speed(sized: Sized, batch: float, context: float, prompt: float, at: Efficiency, network_gb_s: float) -> Speed:
    """Return the speed of one replica that decodes `batch` sequences, each with `context` tokens in its cache.

    Args:
        prompt: Tokens of a prompt.
        network_gb_s: Of the network between nodes, for each GPU in one direction.
    """
    stages = sized.layout.pipeline
    together = max(1.0, batch / stages)  # each stage works on another part of the batch
    step = stages * _stage(sized, together, context, at, network_gb_s) + at.per_step + batch * at.per_sequence
    decode = batch / step if sized.model.attention.cached() else 0.0
    prefill = CHUNK / (_chunk(sized, CHUNK, prompt, at, network_gb_s) + at.per_step / stages)
    chunks = max(1, -(-prompt // CHUNK))  # of a prompt alone, which pass through the stages one after the other
    first = (chunks + stages - 1) * _chunk(sized, prompt / chunks, prompt, at, network_gb_s) + at.per_step
    return Speed(step, first, decode, prefill)


def served(sized: Sized, batch: float, prompt: float, answer: float, at: Efficiency, network_gb_s: float) -> float:
    """Return the answers' tokens a second of one replica that always has `batch` requests, prompts computed between."""
    found = speed(sized, batch, prompt + answer / 2, prompt, at, network_gb_s)
    return batch * answer / (batch * prompt / found.prefill + answer * found.step)


def _rate(sized: Sized, at: Efficiency) -> float:
    return sized.group.gpu.flops(sized.precision.computes) * at.compute


def _attention_rate(sized: Sized, at: Efficiency) -> float:
    return sized.group.gpu.flops("bf16") * at.compute


def _stage(sized: Sized, batch: float, context: float, at: Efficiency, network_gb_s: float) -> float:
    """Return the seconds in which one stage advances `batch` sequences by a token."""
    model, layout = sized.model, sized.layout
    memory = sized.group.gpu.bandwidth_gb_s * 1e9 * at.memory
    found = sized.precision.weights(model)
    unused = found.get("experts", 0) * (1 - model.expert_share(batch))
    looked_up = 0 if model.tied else found.get("embeddings", 0)
    read = (sum(found.values()) - unused - looked_up) / layout.gpus
    multiplied = 2 * model.computed() * batch / layout.gpus / _rate(sized, at)
    cached = batch * model.cached(int(context)) * CACHE_BITS[sized.cache] / 8 * sized.cache_share()
    attended = batch * model.attended(context) / layout.gpus / _attention_rate(sized, at)
    layers = model.layers / layout.pipeline
    summed = _sums(sized, batch, at, network_gb_s)
    return max(read / memory, multiplied) + max(cached / memory, attended) + summed + layers * at.per_layer


def _sums(sized: Sized, tokens: float, at: Efficiency, network_gb_s: float) -> float:
    """Return the seconds of the sums of one stage, and of passing `tokens` activations on."""
    layout, group, size = sized.layout, sized.group, 2 * tokens * sized.model.hidden
    seconds = 0.0
    if layout.tensor > 1:
        moved = 2 * (layout.tensor - 1) / layout.tensor * size / (group.gpu.link_gb_s * 1e9 * at.link)
        seconds += 2 * sized.model.layers / layout.pipeline * (moved + at.per_sum)
    if layout.pipeline > 1:
        rate = network_gb_s if layout.gpus > group.per_node else group.gpu.link_gb_s
        seconds += size / layout.tensor / (rate * 1e9 * at.link) + at.per_sum
    return seconds


def _chunk(sized: Sized, chunk: float, prompt: float, at: Efficiency, network_gb_s: float) -> float:
    """Return the seconds in which one stage computes `chunk` tokens of prompts of `prompt` tokens."""
    model, layout = sized.model, sized.layout
    multiplied = 2 * (model.computed() - _head(sized)) * chunk / layout.gpus / _rate(sized, at)
    reaches = prompt if model.attention.bidirectional else prompt / 2  # the mean of a triangle
    attended = chunk * model.attended(reaches, from_latent=False) / layout.gpus / _attention_rate(sized, at)
    found = sized.precision.weights(model)
    unused = found.get("experts", 0) * (1 - model.expert_share(chunk))
    looked_up = 0 if model.tied else found.get("embeddings", 0)
    memory = sized.group.gpu.bandwidth_gb_s * 1e9 * at.memory
    read = (sum(found.values()) - unused - looked_up) / layout.gpus / memory
    layers = model.layers / layout.pipeline
    return max(multiplied, read) + attended + _sums(sized, chunk, at, network_gb_s) + layers * at.per_layer


def _head(sized: Sized) -> int:
    return sized.model.vocabulary * sized.model.hidden if sized.model.attention.cached() else 0  # only the last token
