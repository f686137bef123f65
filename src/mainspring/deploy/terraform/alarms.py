"""Values of the module's alarms. A load balancer sees the requests of all endpoints together.

So where a target has several endpoints, their failures are held to the strictest of their promises, and slow answers
are not judged: the bounds of two endpoints are no bound of both. Each endpoint by itself is what Prometheus judges.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mainspring.deploy.alarms import LONGEST_S, BurnAlarm


def alarm_values(alarms: Sequence[BurnAlarm], endpoints: Sequence[str], notify: str) -> dict[str, Any]:
    """Return the values of the variables of alarms.

    Args:
        alarms: Of the project's objectives; those of other endpoints, and windows beyond a day, are left out.
        notify: Topic that is told; empty: there are no alarms.
    """
    failing, slow, burning = dict[str, Any](), dict[str, Any](), dict[str, Any]()
    for each in _judged(alarms, endpoints) if notify else ():
        for window, seconds in each.windows.items():
            shown = {"about": f"{each.told(seconds)} It tells nobody by itself.", "seconds": seconds}
            if each.within_s:
                slow[window] = {**shown, "within": each.within_s, "percentile": each.percentile}
            else:
                failing[window] = {**shown, "share": each.share, "fewest": each.fewest_in(seconds)}
        burning[each.name] = {"about": each.told(each.long_s, each.short_s), "windows": list(each.windows)}
    return {"notify": notify, "failing": failing, "slow": slow, "burning": burning}


def _judged(alarms: Sequence[BurnAlarm], endpoints: Sequence[str]) -> list[BurnAlarm]:
    """Return the strictest alarm of each window and bound."""
    found = dict[tuple[float, int, int, bool], BurnAlarm]()
    for each in alarms:
        if each.endpoint not in endpoints or each.long_s > LONGEST_S or (each.within_s and len(endpoints) > 1):
            continue
        key = (each.within_s, each.long_s, each.short_s, each.page)
        if key not in found or each.share < found[key].share:
            found[key] = each
    return list(found.values())
