"""Resources of a training: time, energy, cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mainspring.governance.energy import Points, energy_wh
from mainspring.governance.model import Gap, Resources
from mainspring.registry.model import RunRecord

SECTION = "Resources"


@dataclass(frozen=True, slots=True)
class Price:
    """Price of an hour of training."""

    an_hour: float
    currency: str


def resources_of(
    run: RunRecord | None, history: Callable[[str], Points], price: Price | None, *, trained: bool = True
) -> tuple[Resources, list[Gap]]:
    """Return the resources of a run, and the gaps.

    Args:
        run: `None` if it is not in this installation's store.
        history: Returns the run's history of a metric.
        trained: Whether the run is a training, not the registration of an external model.
    """
    if not trained:
        what = "The version was not trained in this project, so its training resources are unknown."
        return Resources(), [Gap(SECTION, what, "describe them in the card's words; or train the model here.")]
    if run is None or run.ended_at is None:
        what = "The run is not in this installation's store" if run is None else f"The run {run.id} has no end"
        return Resources(), [
            Gap(SECTION, f"{what}, so its time, energy and cost are unknown.", "train the model here.")
        ]
    seconds = (run.ended_at - run.started_at) / 1e6
    gaps = []
    energy, energy_method = energy_wh(run.metrics, history, seconds)
    if not energy_method:
        what = "Energy cannot be estimated: the run recorded no CPU usage."
        fix = "install psutil before training; a run shorter than a tenth of a second records nothing."
        gaps.append(Gap(SECTION, what, fix, required=False))
    if price is None:
        what = "The cost is unknown: no price is set."
        gaps.append(Gap(SECTION, what, 'set training_price = "0.85 EUR" (an hour) in the profile.', required=False))
    return Resources(
        seconds=seconds,
        energy_wh=energy if energy_method else None,
        energy_method=energy_method,
        cost=None if price is None else seconds / 3600 * price.an_hour,
        currency="" if price is None else price.currency,
        cost_method=""
        if price is None
        else f"{price.an_hour:g} {price.currency} an hour, from the start of the run to its end.",
    ), gaps
