"""Layouts of a model over GPUs: tensor, pipeline and expert parallelism, replicas, and the memory that each takes.

Per GPU: its share of weights and cache; activations of one chunk of prompts and the logits of a step; what the
runtime keeps for itself. Tensor parallelism stays inside a node: it sums activations over the GPUs twice a layer
(Megatron-LM, arXiv:1909.08053). Pipeline stages pass one activation on, which a network between nodes can carry.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mainspring.core.accelerators import Group
from mainspring.llm.sizing.architecture import Architecture
from mainspring.llm.sizing.precision import CACHE_BITS, Precision

CHUNK = 8192  # tokens of prompts in one step
RUNTIME = 1.25 * 2**30  # driver's context, communicators, captured graphs
KEPT_FREE = 0.04  # of the memory: fragmentation


@dataclass(frozen=True, slots=True)
class Layout:
    """A way to lay a model over GPUs: `tensor * pipeline * replicas` of them."""

    tensor: int
    pipeline: int
    replicas: int
    expert: int  # GPUs of a stage over which whole experts are spread; 1: each expert is cut like other matrices

    @property
    def gpus(self) -> int:
        """GPUs of one replica."""
        return self.tensor * self.pipeline


@dataclass(frozen=True, slots=True)
class Sized:
    """A model with the types of its weights and cache, in a layout over GPUs."""

    model: Architecture
    precision: Precision
    cache: str
    group: Group
    layout: Layout

    def weights(self) -> float:
        """Bytes of weights on one GPU. Norms and routers are on each; embeddings and head on the outer stages."""
        found = self.precision.weights(self.model)
        outer = (found.get("embeddings", 0) + found.get("head", 0)) / self.layout.tensor
        if self.layout.pipeline > 1:
            outer = max(found.get("embeddings", 0), found.get("head", 0)) / self.layout.tensor
        whole = found.get("norms", 0) + found.get("routers", 0)
        inner = sum(found.get(each, 0) for each in ("attention", "feed-forward", "experts"))
        return self._stage() * (inner / self.layout.tensor + whole) + outer

    def _stage(self) -> float:
        """Share of the layers in the largest stage."""
        return -(-self.model.layers // self.layout.pipeline) / self.model.layers

    def cache_share(self) -> float:
        """Share of a sequence's cache on one GPU; a head of keys and values is not cut, nor is the latent of MLA."""
        attention = self.model.attention
        heads = 1 if attention.latent else attention.kv_heads
        return self._stage() / min(self.layout.tensor, heads)

    def sequence(self, tokens: int) -> float:
        """Bytes of the cache of a sequence on one GPU."""
        return self.model.cached(tokens) * CACHE_BITS[self.cache] / 8 * self.cache_share()

    def activations(self, batch: int) -> float:
        """Bytes of activations in 16 bits of one chunk, and of the logits of a step in 32."""
        width = max(
            self.model.feed_forward.width, self.model.feed_forward.active * self.model.feed_forward.expert_width
        )
        chunk = CHUNK * 2 * (4 * self.model.hidden + 2 * width / self.layout.tensor)
        return chunk + batch * self._logits()

    def _logits(self) -> float:
        return self.model.vocabulary * 4 / self.layout.tensor if self.model.attention.cached() else 0.0

    def fixed(self, batch: int) -> float:
        """Bytes of one GPU that no sequence has."""
        return self.weights() + self.activations(batch) + RUNTIME + KEPT_FREE * self.group.gpu.memory

    def left(self, context: int, batch: int) -> float:
        """Bytes left on one GPU with `batch` sequences of `context` tokens a replica; negative: they do not fit."""
        return self.group.gpu.memory - self.fixed(batch) - batch * self.sequence(context)

    def most_sequences(self, context: int) -> int:
        """The most sequences of `context` tokens that one replica holds; of an encoder, which keeps none, a chunk."""
        room, each = self.group.gpu.memory - self.fixed(0), self.sequence(context) + self._logits()
        return max(0, int(room // each)) if each else CHUNK // context * (room >= 0)

    def longest(self, batch: int) -> int:
        """The most tokens of each of `batch` sequences in a replica; 0 if not even one."""
        low, high = 0, self.model.longest or 1 << 24
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.left(middle, batch) >= 0 else (low, middle - 1)
        return low


def layouts(model: Architecture, group: Group) -> Iterator[Layout]:
    """Yield the layouts that the model's heads and layers, and the group's nodes, allow."""
    heads, kv_heads, experts = model.attention.heads, model.attention.kv_heads, model.feed_forward.experts
    for tensor in range(1, group.per_node + 1):
        if heads % tensor or (kv_heads % tensor and tensor % kv_heads) or group.per_node % tensor:
            continue
        for pipeline in range(1, min(group.count // tensor, model.layers) + 1):
            if group.count % (tensor * pipeline):
                continue
            expert = tensor if experts and experts % tensor == 0 else 1
            yield Layout(tensor, pipeline, group.count // (tensor * pipeline), expert)


def reasons(layout: Layout, group: Group, network_gb_s: float) -> list[str]:
    """Return which axis uses which link, and why."""
    found, link = [], f"{group.gpu.link} ({group.gpu.link_gb_s:g} GB/s in a direction)"
    if layout.tensor > 1:
        found.append(f"tensor {layout.tensor} over {link}: its GPUs sum activations twice in each layer")
    if layout.expert > 1:
        found.append(f"experts: whole ones on each of the {layout.expert} GPUs, so that no expert is cut")
    if layout.pipeline > 1:
        crosses = layout.gpus > group.per_node
        where = f"the network between nodes ({network_gb_s:g} GB/s a GPU)" if crosses else link
        found.append(f"pipeline {layout.pipeline} over {where}: a stage passes on one activation of a token")
    if layout.replicas > 1:
        found.append(f"{layout.replicas} replicas of {layout.gpus} GPUs: they share nothing, so no link limits them")
    return found or ["one GPU: no link is used"]
