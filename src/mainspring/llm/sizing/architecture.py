"""Architecture of a transformer: its parameters by kind of layer, and the values that it caches for each token."""

from __future__ import annotations

from dataclasses import dataclass

_UNBOUNDED = 1 << 40


@dataclass(frozen=True, slots=True)
class Attention:
    """Attention of one layer.

    Attributes:
        heads, kv_heads: Query heads, and the heads that have keys and values: fewer with GQA, one with MQA.
        head_dim: Values of a query, and of a key; `value_dim` those of a value.
        latent: Rank of the latent from which MLA computes keys and values (DeepSeek-V2, arXiv:2405.04434); 0 without.
        query_rank: Rank of the latent of queries; 0 without.
        rope_dim: Part of a key that MLA caches beside the latent.
        extras: Parameters of a layer beyond the matrices: biases, norms of queries and keys, sinks.
        bidirectional: Whether a token sees later tokens: an encoder, which caches nothing.
    """

    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    latent: int = 0
    query_rank: int = 0
    rope_dim: int = 0
    extras: int = 0
    bidirectional: bool = False

    def matrices(self, hidden: int) -> int:
        """Parameters of the projections."""
        out = self.heads * self.value_dim * hidden
        if not self.latent:
            keys_and_values = self.kv_heads * (self.head_dim + self.value_dim)
            return hidden * (self.heads * self.head_dim + keys_and_values) + out
        query = self.heads * self.head_dim
        queries = self.query_rank * (hidden + query) if self.query_rank else hidden * query
        up = self.latent * self.heads * (self.head_dim - self.rope_dim + self.value_dim)
        return queries + hidden * (self.latent + self.rope_dim) + up + out

    def cached(self) -> int:
        """Values that a layer caches for each token."""
        if self.bidirectional:
            return 0
        return self.latent + self.rope_dim if self.latent else self.kv_heads * (self.head_dim + self.value_dim)

    def values_share(self, hidden: int) -> float:
        """Share of the projection of values in the matrices."""
        return 0.0 if self.latent else hidden * self.kv_heads * self.value_dim / self.matrices(hidden)


@dataclass(frozen=True, slots=True)
class FeedForward:
    """Feed-forward part of one layer: dense, or experts of which a token uses some.

    Attributes:
        width: Of the dense part. `matrices`: 3 where it is gated, else 2.
        experts, active: All experts of a layer, and those of one token; 0 without experts.
        expert_width, shared_width: Of one expert, and of what all tokens use beside their experts.
        router: Parameters of the router of a layer.
        dense_layers: Layers that have no experts.
        extras, expert_extras: Biases of a dense layer, and of an expert.
    """

    width: int
    matrices: int = 3
    experts: int = 0
    active: int = 0
    expert_width: int = 0
    shared_width: int = 0
    router: int = 0
    dense_layers: int = 0
    extras: int = 0
    expert_extras: int = 0

    def of_expert(self, hidden: int) -> int:
        """Parameters of one expert."""
        return self.matrices * hidden * self.expert_width + self.expert_extras


@dataclass(frozen=True, slots=True)
class Architecture:
    """A transformer.

    Attributes:
        norms: Parameters of the norms of one layer. `last_norm`: of those outside of layers.
        embeddings: Parameters of the embeddings, of positions too.
        head: Parameters of the head; 0 where it is tied to the embeddings, and `tied` says so.
        window: Tokens that a windowed layer attends to; 0 without. `windowed`: the number of such layers.
        longest: Positions that the model was made for; 0 if the configuration does not say.
        dtype: Type of the published weights, as `precision` names it.
    """

    name: str
    kind: str
    layers: int
    hidden: int
    vocabulary: int
    attention: Attention
    feed_forward: FeedForward
    norms: int
    last_norm: int
    embeddings: int
    head: int
    tied: bool
    window: int = 0
    windowed: int = 0
    longest: int = 0
    dtype: str = "bf16"
    notes: tuple[str, ...] = ()

    def parameters(self) -> dict[str, int]:
        """Parameters by kind of layer."""
        parts, layers, hidden = self.feed_forward, self.layers, self.hidden
        sparse = layers - parts.dense_layers if parts.experts else 0
        dense = (layers - sparse) * (parts.matrices * hidden * parts.width + parts.extras)
        found = {
            "embeddings": self.embeddings,
            "attention": layers * (self.attention.matrices(hidden) + self.attention.extras),
            "feed-forward": dense + sparse * parts.matrices * hidden * parts.shared_width,
            "experts": sparse * parts.experts * parts.of_expert(hidden),
            "routers": sparse * parts.router,
            "norms": layers * self.norms + self.last_norm,
            "head": self.head,
        }
        return {kind: count for kind, count in found.items() if count}

    def total(self) -> int:
        """All parameters."""
        return sum(self.parameters().values())

    def expert_share(self, tokens: float) -> float:
        """Expected share of the experts that `tokens` tokens use, if routers choose evenly."""
        parts = self.feed_forward
        return 1 - (1 - parts.active / parts.experts) ** tokens if parts.experts else 0.0

    def computed(self) -> int:
        """Parameters that one token is multiplied with: those of its experts, and of the embeddings only a head."""
        parts = self.parameters()
        share = self.feed_forward.active / self.feed_forward.experts if self.feed_forward.experts else 0.0
        head = self.vocabulary * self.hidden if self.tied else parts.get("head", 0)
        return round(sum(parts.get(each, 0) for each in ("attention", "feed-forward", "routers"))
                     + share * parts.get("experts", 0)) + head  # fmt: skip

    def active(self) -> int:
        """Parameters that one token uses, as model cards count them: all but the experts that it does not use."""
        unused = 1 - self.expert_share(1)
        return self.total() - round(unused * self.parameters().get("experts", 0))

    def cached(self, tokens: int) -> int:
        """Values in the cache of a sequence of `tokens` tokens."""
        window = self.window or _UNBOUNDED
        return self.attention.cached() * ((self.layers - self.windowed) * tokens + self.windowed * min(tokens, window))

    def attended(self, tokens: float, *, from_latent: bool = True) -> float:
        """Multiplications and additions of one token's attention to `tokens` tokens, in all layers.

        Args:
            from_latent: Whether MLA computes on the latent, as a step of decoding does (arXiv:2405.04434, section
                2.1.2), or on keys and values, as for prompts.
        """
        attention = self.attention
        values = attention.heads * (attention.head_dim + attention.value_dim)
        if attention.latent and from_latent:
            values = attention.heads * (2 * attention.latent + attention.rope_dim)
        window = min(tokens, self.window or _UNBOUNDED)
        return 2.0 * values * ((self.layers - self.windowed) * tokens + self.windowed * window)
