"""Incidents as a pass of the monitor leaves them."""

from __future__ import annotations

from typing import Any

import msgspec

from mainspring.core.ids import new_id
from mainspring.core.time import HOUR
from mainspring.monitoring.incidents.model import Cause, Incident, Symptom


def incident(endpoint: str, now: int, *, source: str = "weather", **changes: Any) -> Incident:
    """Return an open incident: two columns of a source have been null for an hour."""
    symptoms = tuple(
        Symptom(
            channel="contract", endpoint=endpoint, statistic="nulls", column=f"Weather.{name}", first=now - HOUR,
            last=now, severity=severity, value=1.0, expected=0.01, page=True, detail=f"All values of {name} are null.",
        )
        for name, severity in (("wind", 3.0), ("visibility", 9.0))
    )  # fmt: skip
    made = Incident(
        id=new_id(), cause=Cause(kind="source", name=source, key=f"source:{source}"), endpoints=(endpoint,),
        channels=("contract",), symptoms=symptoms, severity=9.0, page=True, opened_at=now, updated_at=now, told="page",
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)
