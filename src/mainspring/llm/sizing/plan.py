"""Plan of serving a language model: what fits on which GPUs in which layout, how fast, at which cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from mainspring.core.accelerators import Group
from mainspring.core.errors import Invalid
from mainspring.cost.catalogue.offers import gpu_hour
from mainspring.llm.sizing.architecture import Architecture
from mainspring.llm.sizing.layout import CHUNK, KEPT_FREE, RUNTIME, Layout, Sized, layouts, reasons
from mainspring.llm.sizing.precision import CACHE_BITS, PRECISIONS
from mainspring.llm.sizing.roofline import GOOD, POOR, USUAL, Efficiency, Speed, served, speed

NETWORK_GB_S = 50.0  # 400 Gbit/s for each GPU
_SMALLER = ("bf16", "fp8", "awq", "gguf-q4_k_m")
_MOST_TOKENS, _MOST_SEQUENCES = 1 << 24, 1 << 20


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """An estimate, from `low` to `high`."""

    low: float
    expected: float
    high: float


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """GPUs by axis: `tensor * pipeline * replicas`, and over how many of them whole experts are spread."""

    tensor: int
    pipeline: int
    expert: int
    replicas: int
    reasons: list[str]


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes on the fullest GPU. `free` is negative where they are missing."""

    weights: int
    cache: int
    activations: int
    runtime: int
    free: int
    total: int


class Dollars(msgspec.Struct, frozen=True, kw_only=True):
    """Dollars for a million tokens of prompts, and of answers; both are paid for a request."""

    prompt: Interval
    answer: Interval | None


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """The model with weights of one type.

    Attributes:
        weights_bytes: Of the whole model.
        missing_bytes: How much more memory each GPU would have to have; 0 if it fits.
        most_sequences: Sequences of the planned context that fit, on all GPUs.
        longest_context: Tokens of each of the planned sequences that fit; at most the model's own.
        prefill, decode: Tokens of prompts, and of answers, a second on all GPUs. An encoder decodes nothing.
        first_token_ms, next_token_ms: Time of a prompt alone, and between two tokens of an answer.
        answers_tokens_s: Tokens of answers a second if prompts are computed between.
    """

    dtype: str
    cache_dtype: str
    weights_bytes: int
    fits: bool
    missing_bytes: int
    placement: Placement
    memory: Memory
    most_sequences: int
    longest_context: int
    prefill: Interval | None = None
    decode: Interval | None = None
    answers_tokens_s: Interval | None = None
    first_token_ms: Interval | None = None
    next_token_ms: Interval | None = None
    dollars_per_million: Dollars | None = None
    notes: list[str] = []


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A plan for one model.

    Attributes:
        parameters: By kind of layer. `active`: those that one token uses.
        cache_bytes_per_token: Of a sequence, with the cache in 16 bits; less per token beyond a window.
        price: Dollars an hour for one GPU; `priced`: where and when it was that.
    """

    model: str
    type: str
    total: int
    active: int
    parameters: dict[str, int]
    cache_bytes_per_token: int
    gpus: str
    context: int
    prompt: int
    answer: int
    concurrency: int
    price: float | None
    priced: str
    variants: list[Variant]
    assumptions: list[str]


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Load that a plan is for.

    Attributes:
        context: Tokens that each sequence may have, prompt and answer together.
        concurrency: Sequences at once.
        prompt: Tokens of a prompt; by default three quarters of the context, the answer being the rest.
        dtypes: Types of weights; by default the published one and smaller ones.
        cache: Type of the cache.
        price: Dollars an hour for one GPU, instead of the table's.
        network_gb_s: Between nodes, for each GPU in one direction.
    """

    context: int = 8192
    concurrency: int = 64
    prompt: int | None = None
    dtypes: tuple[str, ...] = ()
    cache: str = "bf16"
    price: float | None = None
    network_gb_s: float = NETWORK_GB_S


def plan(model: Architecture, group: Group, wanted: Wanted | None = None) -> Plan:
    """Plan how to serve a model on GPUs.

    Raises:
        Invalid: The context, the number of sequences, a type or the price is impossible.
    """
    wanted = wanted or Wanted()
    _check(model, wanted)
    prompt = wanted.prompt if wanted.prompt is not None else max(1, wanted.context * 3 // 4)
    if not model.attention.cached():
        prompt = wanted.context
    price, priced = _price(wanted, group)
    dtypes = wanted.dtypes or _by_default(model)
    return Plan(
        model=model.name,
        type=model.kind,
        total=model.total(),
        active=model.active(),
        parameters=model.parameters(),
        cache_bytes_per_token=model.cached(1) * 2,
        gpus=group.said,
        context=wanted.context,
        prompt=prompt,
        answer=wanted.context - prompt,
        concurrency=wanted.concurrency,
        price=price,
        priced=priced,
        variants=[_variant(model, group, wanted, prompt, name, price) for name in dict.fromkeys(dtypes)],
        assumptions=_assumptions(model, group, wanted),
    )


def _price(wanted: Wanted, group: Group) -> tuple[float | None, str]:
    """Return dollars an hour for one GPU, and what they are a price of: as asked for, as described, or of the list."""
    if wanted.price is not None:
        return wanted.price, ""
    if group.gpu.price is not None:
        return group.gpu.price, group.gpu.priced
    return gpu_hour(group.gpu.name) or (None, "")


def _check(model: Architecture, wanted: Wanted) -> None:
    if not 0 < wanted.context <= _MOST_TOKENS or not 0 < wanted.concurrency <= _MOST_SEQUENCES:
        raise Invalid(f"{wanted.concurrency} sequences of {wanted.context} tokens are no load to plan for.")
    if model.longest and wanted.context > model.longest:
        raise Invalid(
            f"{model.name} has positions for {model.longest:,} tokens, and {wanted.context:,} are asked for.",
            fix=f"--context {model.longest} or less.",
        )
    if wanted.prompt is not None and not 0 < wanted.prompt < wanted.context:
        raise Invalid(f"A prompt of {wanted.prompt} tokens leaves no answer in a context of {wanted.context}.")
    unknown = [name for name in wanted.dtypes if name not in PRECISIONS]
    if unknown or wanted.cache not in CACHE_BITS:
        raise Invalid(
            f"{(unknown or [wanted.cache])[0]!r} is no known type.",
            fix=f"weights: {', '.join(PRECISIONS)}; cache: {', '.join(CACHE_BITS)}.",
        )
    if wanted.price is not None and not 0 <= wanted.price < 1e6:
        raise Invalid(f"{wanted.price} is no price of a GPU's hour in dollars.")
    if not 0 < wanted.network_gb_s < 1e6:
        raise Invalid(f"{wanted.network_gb_s} is no rate of a network in GB/s.")


def _by_default(model: Architecture) -> list[str]:
    """Return the published type, and those of fewer bits."""
    bits = PRECISIONS[model.dtype].bits
    return [model.dtype, *(name for name in _SMALLER if PRECISIONS[name].bits < bits)]


def _variant(
    model: Architecture, group: Group, wanted: Wanted, prompt: int, dtype: str, price: float | None
) -> Variant:
    precision = PRECISIONS[dtype]
    found = [Sized(model, precision, wanted.cache, group, layout) for layout in layouts(model, group)]
    sized, fits = _chosen(found, wanted, prompt)
    layout = sized.layout
    each = _each(wanted.concurrency, layout)
    left, gpu = sized.left(wanted.context, each), group.gpu
    cache = sized.sequence(wanted.context) * each
    parts = (sized.weights(), cache, sized.activations(each), RUNTIME + KEPT_FREE * gpu.memory)
    weights, cached, activations, runtime = (round(part) for part in parts)
    total = round(gpu.memory)
    notes = []
    if precision.computes not in gpu.tflops and precision.computes != "bf16":
        notes.append(f"{gpu.name} does not compute in {precision.computes}: weights are expanded to 16 bits")
    result = Variant(
        dtype=dtype,
        cache_dtype=wanted.cache,
        weights_bytes=round(sum(precision.weights(model).values())),
        fits=fits,
        missing_bytes=0 if fits else max(1, round(-left)),
        placement=Placement(
            tensor=layout.tensor, pipeline=layout.pipeline, expert=layout.expert, replicas=layout.replicas,
            reasons=reasons(layout, group, wanted.network_gb_s),
        ),
        memory=Memory(
            weights=weights, cache=cached, activations=activations, runtime=runtime, total=total,
            free=total - weights - cached - activations - runtime,
        ),
        most_sequences=sized.most_sequences(wanted.context) * layout.replicas,
        longest_context=sized.longest(each),
        notes=notes,
    )  # fmt: skip
    return msgspec.structs.replace(result, **_speeds(sized, wanted, prompt, price)) if fits else result


def _each(concurrency: int, layout: Layout) -> int:
    """Return the sequences of the replica that has most."""
    return -(-concurrency // layout.replicas)


def _chosen(found: Sequence[Sized], wanted: Wanted, prompt: int) -> tuple[Sized, bool]:
    """Return the layout with most answers a second of those that fit; if none does, the one that fits most."""

    def answers(sized: Sized) -> float:
        each, answer = wanted.concurrency / sized.layout.replicas, max(1, wanted.context - prompt)
        return sized.layout.replicas * served(sized, each, prompt, answer, USUAL, wanted.network_gb_s)

    fitting = [each for each in found if each.left(wanted.context, _each(wanted.concurrency, each.layout)) >= 0]
    if fitting:
        return max(fitting, key=lambda each: (answers(each), -each.layout.tensor)), True
    return max(
        found,
        key=lambda each: (
            each.most_sequences(wanted.context) * each.layout.replicas,
            each.left(wanted.context, _each(wanted.concurrency, each.layout)),
        ),
    ), False


def _speeds(sized: Sized, wanted: Wanted, prompt: int, price: float | None) -> dict[str, Any]:
    """Return the speeds and costs of a variant that fits."""
    replicas, answer = sized.layout.replicas, wanted.context - prompt
    each = wanted.concurrency / replicas
    context = prompt + answer / 2  # of an answer that is half written

    def over(value: Callable[[Efficiency, Speed], float]) -> Interval:
        network = wanted.network_gb_s
        low, expected, high = (
            value(at, speed(sized, each, context, prompt, at, network)) for at in (POOR, USUAL, GOOD)
        )
        return Interval(low=min(low, high), expected=expected, high=max(low, high))

    decodes = bool(sized.model.attention.cached()) and answer > 0
    busy = min(wanted.concurrency, replicas) / replicas if wanted.concurrency < replicas else 1.0
    found = {"prefill": over(lambda _at, found: replicas * busy * found.prefill)}
    if decodes:
        found["decode"] = over(lambda _at, found: replicas * found.decode)
        found["answers_tokens_s"] = over(
            lambda at, _found: replicas * served(sized, each, prompt, answer, at, wanted.network_gb_s)
        )
        found["next_token_ms"] = over(lambda _at, found: 1e3 * found.step)
    found["first_token_ms"] = over(lambda _at, found: 1e3 * found.first)
    if price is None:
        return dict(found)

    def dollars(rate: Interval) -> Interval:
        second = price * sized.group.count / 3600
        return Interval(low=1e6 * second / rate.high, expected=1e6 * second / rate.expected,
                        high=1e6 * second / rate.low)  # fmt: skip

    of_answers = dollars(found["decode"]) if decodes else None
    return {**found, "dollars_per_million": Dollars(prompt=dollars(found["prefill"]), answer=of_answers)}


def _assumptions(model: Architecture, group: Group, wanted: Wanted) -> list[str]:
    found = [
        f"Memory: a chunk of {CHUNK:,} tokens of prompts in a step, {RUNTIME / 2**30:.4g} GiB for driver and "
        f"communication, {KEPT_FREE:.0%} kept free.",
        "Every sequence may fill its whole context at the same time; a cache in pages wastes nothing else.",
        f"Speed: {USUAL.compute:.0%} ({POOR.compute:.0%} to {GOOD.compute:.0%}) of the dense FLOPS, {USUAL.memory:.0%} "
        f"({POOR.memory:.0%} to {GOOD.memory:.0%}) of the memory's bandwidth, {USUAL.link:.0%} ({POOR.link:.0%} to "
        f"{GOOD.link:.0%}) of the link's; no speculative decoding, no shared prefixes.",
    ]
    if model.feed_forward.experts:
        found.append("Routers choose experts evenly; a hot expert makes a step longer.")
    if model.attention.latent:
        found.append("The latent of MLA is not cut by tensor parallelism: each GPU caches all of it.")
    if group.nodes > 1:
        found.append(f"Between nodes {wanted.network_gb_s:g} GB/s for each GPU.")
    return [*found, *model.notes]
