"""Values of the module's alarms. A load balancer sees the requests of all endpoints together.

So where a target has several endpoints, their failures are held to the strictest of their promises, and slow answers
are not judged: the bounds of two endpoints are no bound of both. Each endpoint by itself is what Prometheus judges.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mainspring.deploy.alarms import BurnAlarm

_LONGEST_S = 86_400  # of a period of CloudWatch


def alarm_values(alarms: Sequence[BurnAlarm], endpoints: Sequence[str], notify: str) -> dict[str, Any]:
    """Return the values of the variables of alarms.

    Args:
        alarms: Of the project's objectives; those of other endpoints, and windows beyond a day, are left out.
        notify: Topic that is told; empty: there are no alarms.
    """
    failing, slow, burning = dict[str, Any](), dict[str, Any](), dict[str, Any]()
    for each in _judged(alarms, endpoints) if notify else ():
        name = f"slow-{each.within_s * 1000:g}ms" if each.within_s else "failing"
        name = f"{name}-{each.long_s}s-{'page' if each.page else 'ticket'}"
        windows = {f"{name}-over-{seconds}s": seconds for seconds in (each.long_s, each.short_s)}
        for window, seconds in windows.items():
            about = f"{_share(each)} in {seconds} s: {each.about}. It tells nobody by itself."
            if each.within_s:
                percentile = f"p{100 * (1 - each.share):.10g}"
                slow[window] = {"about": about, "seconds": seconds, "within": each.within_s, "percentile": percentile}
            else:
                fewest = each.fewest if seconds == each.long_s else 1
                failing[window] = {"about": about, "seconds": seconds, "share": each.share, "fewest": fewest}
        about = f"{_share(each)} in {each.long_s} s and in {each.short_s} s: {each.about}."
        burning[name] = {"about": about, "windows": list(windows)}
    return {"notify": notify, "failing": failing, "slow": slow, "burning": burning}


def _judged(alarms: Sequence[BurnAlarm], endpoints: Sequence[str]) -> list[BurnAlarm]:
    """Return the strictest alarm of each window and bound."""
    found = dict[tuple[float, int, int, bool], BurnAlarm]()
    for each in alarms:
        if each.endpoint not in endpoints or each.long_s > _LONGEST_S or (each.within_s and len(endpoints) > 1):
            continue
        key = (each.within_s, each.long_s, each.short_s, each.page)
        if key not in found or each.share < found[key].share:
            found[key] = each
    return list(found.values())


def _share(alarm: BurnAlarm) -> str:
    return f"Over {100 * alarm.share:.6g}% of requests {'slow' if alarm.within_s else 'failed'}"
