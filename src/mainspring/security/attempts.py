"""Rate limits of log-in attempts: for one address, and for all together."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from mainspring.core.errors import Overloaded

_MOST_ADDRESSES = 4096


@dataclass(frozen=True, slots=True)
class Allowance:
    """Numbers of attempts at once and per minute."""

    at_once: int
    a_minute: int


class Attempts:
    """Counter of attempts in buckets that refill with time. A success counts as well, because each attempt is audited.

    Args:
        one: Allowance of one address; of IPv6 a network of 64 bits is one address.
        every: Allowance of all addresses together.
        monotonic: Returns seconds.
    """

    def __init__(
        self,
        one: Allowance = Allowance(20, 20),
        every: Allowance = Allowance(200, 200),
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._one, self._every = one, every
        self._monotonic = monotonic
        self._changing = threading.Lock()
        self._used: dict[str, tuple[float, float]] = {}  # address -> attempts used, and the time of that count
        self._used_by_all = (0.0, monotonic())

    def check(self, address: str) -> None:
        """Count an attempt.

        Raises:
            Overloaded: There were too many from this address or from all; this one is not counted.
        """
        now, name = self._monotonic(), network(address)
        with self._changing:
            mine = _left(self._used.get(name, (0.0, now)), now, self._one) + 1
            all_of_them = _left(self._used_by_all, now, self._every) + 1
            over = max(
                (mine - self._one.at_once) / self._one.a_minute,
                (all_of_them - self._every.at_once) / self._every.a_minute,
            )
            if over > 0:
                wait_s = max(1, round(over * 60 + 0.5))
                raise Overloaded(f"Too many attempts. Try again in {wait_s} s.", retry_after_ms=wait_s * 1000)
            if name not in self._used and len(self._used) >= _MOST_ADDRESSES:
                self._forget(now)
            self._used[name] = mine, now
            self._used_by_all = all_of_them, now

    def _forget(self, now: float) -> None:
        """Drop addresses whose bucket is full again, or if there are none, the one with the fewest used attempts."""
        kept = {name: used for name, used in self._used.items() if _left(used, now, self._one) > 0}
        if len(kept) >= _MOST_ADDRESSES:
            del kept[min(kept, key=lambda name: _left(kept[name], now, self._one))]
        self._used = kept


def _left(used: tuple[float, float], now: float, allowance: Allowance) -> float:
    """Return the number of attempts that still count."""
    count, since = used
    return max(0.0, count - (now - since) * allowance.a_minute / 60)


def network(address: str) -> str:
    """Return the address that is counted: for IPv6 its network of 64 bits; empty if the text is not an address."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if found.version == 6 and found.ipv4_mapped is None:
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)
