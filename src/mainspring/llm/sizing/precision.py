"""Types of weights: how many bits a parameter takes, and in which type the GPU computes.

Formats with groups store a scale of 16 bits for each 128 weights, AWQ and GPTQ a zero of 4 bits beside it. GGUF's
types take what llama.cpp's blocks do (`ggml-common.h`); its mixtures "_M" promote half of the projections of values
and of the last matrices of feed-forward parts, and the head, to more bits (`llama-quant.cpp`).
"""

from __future__ import annotations

from dataclasses import dataclass

from mainspring.llm.sizing.architecture import Architecture


@dataclass(frozen=True, slots=True)
class Precision:
    """A type of weights.

    Attributes:
        bits: Of a parameter of a matrix in a layer. `promoted`: of those that a mixture promotes.
        outer_bits, head_bits: Of embeddings, and of the head. `attention_bits`: of attention, if others.
        computes: Type of the operands of matrix products: weights of fewer bits are expanded to it.
    """

    name: str
    bits: float
    computes: str = "bf16"
    promoted: float = 0.0
    outer_bits: float = 16.0
    head_bits: float = 16.0
    attention_bits: float = 0.0

    def weights(self, model: Architecture) -> dict[str, float]:
        """Bytes by kind of layer."""
        more = (self.promoted - self.bits) / 2 if self.promoted else 0.0  # half of them are promoted
        feed_forward = self.bits + more / model.feed_forward.matrices
        bits = {
            "embeddings": self.head_bits if model.tied else self.outer_bits,
            "attention": self.attention_bits or self.bits + more * model.attention.values_share(model.hidden),
            "feed-forward": feed_forward,
            "experts": feed_forward,
            "head": self.head_bits,
        }
        return {kind: count * bits.get(kind, 16.0) / 8 for kind, count in model.parameters().items()}


def _gguf(name: str, bits: float, promoted: float = 0.0, head: float = 6.5625) -> Precision:
    return Precision(f"gguf-{name}", bits, promoted=promoted, outer_bits=bits, head_bits=head)


PRECISIONS = {
    each.name: each
    for each in (
        Precision("bf16", 16),
        Precision("fp8", 8, computes="fp8"),
        Precision("int8", 8, computes="int8"),
        Precision("int4", 4.125),
        Precision("awq", 4.15625),
        Precision("gptq", 4.15625),
        Precision("mxfp4", 4.25, attention_bits=16),
        _gguf("q8_0", 8.5, head=8.5),
        _gguf("q6_k", 6.5625),
        _gguf("q5_k_m", 5.5, promoted=6.5625),
        _gguf("q4_k_m", 4.5, promoted=6.5625),
        _gguf("q4_0", 4.5),
    )
}
CACHE_BITS = {"bf16": 16, "fp8": 8}
