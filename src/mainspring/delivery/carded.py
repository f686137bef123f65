"""Model card gate: requires a complete model card."""

from __future__ import annotations

from mainspring.delivery.model import GateResult
from mainspring.governance.model import Card

CARD = "card"  # kind of the gate
_NAMED = 6  # maximum number of gaps in the note


def verdict(card: Card) -> GateResult:
    """Return the gate's result: whether the card has no required gap; the note lists the gaps."""
    missing = [gap.what for gap in card.gaps if gap.required]
    more = f" And {len(missing) - _NAMED} more." if len(missing) > _NAMED else ""
    return GateResult(
        gate="complete card",
        against="required gaps",
        value=None if missing else 0.0,
        needed=None if missing else 0.0,
        passed=card.complete,
        short_by=float(len(missing)),
        note=(
            f"{' '.join(missing[:_NAMED])}{more} `mainspring models card {card.model}:{card.version}` shows the fixes"
        )
        if missing
        else "",
    )
