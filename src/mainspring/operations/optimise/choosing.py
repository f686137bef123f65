"""The choice of a variant: the cheapest whose loss of quality stays within a bound, and which passes the gates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from mainspring.core.errors import Conflict, NotFound
from mainspring.operations.optimise.model import PARENT, Cost, VariantReport

LEAST_GAIN = 0.1  # share of the parent's cost below which a variant is not worth what it loses
NEAR = 0.03  # share of a cost that a repeated measurement does not tell apart
COSTS: Mapping[str, tuple[str, Callable[[Cost], float]]] = {
    "cpu": ("p50 of one row", lambda cost: cost.p50_us),
    "cuda": ("p50 of a batch", lambda cost: cost.batch_p50_us),
    "edge": ("size", lambda cost: float(cost.bytes)),
}


def on_front(variants: Sequence[VariantReport], target: str) -> list[VariantReport]:
    """Return the variants, those marked that no other beats in quality and in cost; only what may be chosen counts."""
    cost = COSTS[target][1]
    points = {
        each.name: (each.quality.loss, cost(each.cost))
        for each in variants
        if each.quality is not None and each.cost is not None and not each.why_not and not each.gates_failed
    }

    def beaten(name: str) -> bool:
        loss, price = points[name]
        return any(a <= loss and b <= price and (a, b) != (loss, price) for a, b in points.values())

    return [msgspec.structs.replace(each, front=each.name in points and not beaten(each.name)) for each in variants]


def choose(
    variants: Sequence[VariantReport], target: str, allowed_loss: float, name: str | None = None
) -> tuple[str | None, str]:
    """Return the chosen variant, `None` if the parent stays, and the reason.

    Args:
        variants: With the parent, as `on_front` returns them.
        allowed_loss: Largest loss of the metric, in its unit.
        name: One to take although it is not the cheapest, or loses more; not one whose rows depend on their batch.

    Raises:
        NotFound: There is no variant of that name.
        Conflict: It cannot be made or is not served.
    """
    label, cost = COSTS[target]
    by_name = {each.name: each for each in variants}
    if name is not None:
        chosen = by_name.get(name)
        if chosen is None or name == PARENT:
            known = ", ".join(each for each in by_name if each != PARENT)
            raise NotFound(f"There is no variant {name!r}.", fix=f"choose one of {known}.")
        if chosen.why_not:
            raise Conflict(f"The variant {name} cannot be chosen: {chosen.why_not}", fix="choose another.")
        return name, "As asked for."
    best, why = _cheapest(
        [each for each in variants if not each.gates_failed], by_name[PARENT], label, cost, allowed_loss
    )
    if best is None:
        other, gain = _cheapest(variants, by_name[PARENT], label, cost, allowed_loss)
        if other is not None:
            gate = by_name[other].gates_failed[0]
            why = f"{other} is left out. {gain} But it fails a gate: {gate}."
    return best, why


def _cheapest(
    variants: Sequence[VariantReport],
    parent: VariantReport,
    label: str,
    cost: Callable[[Cost], float],
    allowed_loss: float,
) -> tuple[str | None, str]:
    """Return the variant to choose of these, `None` if the parent stays, and the reason."""
    fine = [
        (cost(each.cost), each.name, each.quality.worst_loss)
        for each in variants
        if each.quality is not None and each.cost is not None and not each.why_not
        and each.quality.worst_loss <= allowed_loss
    ]  # fmt: skip
    if not fine:
        return None, "No variant keeps the quality and the gates."
    least = min(price for price, _, _ in fine)
    near = [each for each in fine if each[0] <= least * (1 + NEAR)]
    price, best, loss = min(near, key=lambda each: (each[2], each[0], each[1]))
    effect = f"worse by at most {loss:.3g}" if loss > 0 else "no worse"
    if parent.cost is None:
        return best, f"The version itself does not run there. It has the least {label}; its metric is {effect}."
    gain = 1 - price / cost(parent.cost)
    if best == PARENT or gain < LEAST_GAIN:
        return None, f"No variant within the bound lowers the {label} by {LEAST_GAIN:.0%} or more."
    return best, f"It lowers the {label} by {gain:.0%}; its metric is {effect}."
