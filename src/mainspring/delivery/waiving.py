"""Waivers: a failed gate that a person passes over, for a reason and until an instant.

A waiver is bound to a version's bundle and to a gate as it is written, and signed with the project's key, so that a
row that something else wrote into the catalog does not count. Approvals and a bundle's integrity cannot be waived.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mainspring.core.errors import Corrupt, Invalid
from mainspring.core.time import DAY, format_duration, format_instant
from mainspring.delivery.approving import APPROVED
from mainspring.delivery.model import GateResult
from mainspring.registry.model import Waiver
from mainspring.security.signing import verify
from mainspring.training.gate_kinds import Gate

LONGEST = 90 * DAY


def gate_named(gates: Sequence[Gate], given: str) -> Gate:
    """Return the gate that a person names: its text, or a part of the text of only one gate.

    Raises:
        Invalid: There is none, or several, or it cannot be waived.
    """
    wanted = given.strip().casefold()
    exact = [gate for gate in gates if str(gate).casefold() == wanted]
    found = exact or [gate for gate in gates if wanted and wanted in str(gate).casefold()]
    if len(found) != 1:
        names = "; ".join(map(str, gates)) or "none"
        raise Invalid(f"{len(found) or 'No'} gates match {given[:140]!r}.", fix=f"give one of its gates: {names}.")
    if found[0].kind == APPROVED:
        raise Invalid(f"The gate {str(found[0])!r} cannot be waived.", fix="let somebody else approve the version.")
    return found[0]


def check_end(now: int, until: int) -> None:
    """Raise if a waiver may not end at `until`.

    Raises:
        Invalid: It is past, or further away than 90 days.
    """
    if not now < until <= now + LONGEST:
        raise Invalid(
            f"A waiver cannot end at {format_instant(until)}.",
            fix=f"give an instant within {format_duration(LONGEST)} from now, {format_instant(now)}.",
        )


def holds(waiver: Waiver, digest: str, public_key: bytes, now: int) -> bool:
    """Return whether a waiver counts now, for the bundle with this digest."""
    if waiver.digest != digest or waiver.ended_at is not None or not waiver.at <= now < waiver.until:
        return False
    try:
        verify(public_key, waiver.signature, waiver.content())
    except Corrupt:
        return False
    return True


def with_waivers(
    results: Sequence[GateResult], waivers: Sequence[Waiver], *, digest: str, public_key: bytes, now: int
) -> list[GateResult]:
    """Return the results, those that did not pass with the waiver that counts for their gate, if there is one.

    Args:
        waivers: The version's, newest first.
        public_key: The project's.
    """
    counting = [each for each in waivers if holds(each, digest, public_key, now)]
    texts = {each.gate: said(each) for each in reversed(counting)}
    return [
        msgspec.structs.replace(result, waived=texts[result.gate])
        if not result.passed and result.gate in texts and not result.gate.startswith(f"{APPROVED} by ")
        else result
        for result in results
    ]


def said(waiver: Waiver) -> str:
    """Return who waived a gate, until when and why."""
    return f"{waiver.actor} until {format_instant(waiver.until)}: {waiver.reason}"
