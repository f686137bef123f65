"""Alarms of objectives for services of clouds: what the rules for Prometheus say, in windows and shares of requests."""

from __future__ import annotations

from dataclasses import dataclass

LONGEST_S = 86_400  # of a period of CloudWatch


@dataclass(frozen=True, slots=True, kw_only=True)
class BurnAlarm:
    """An alarm on the error budget of an objective: more than `share` is bad in both windows.

    Attributes:
        endpoint: Its name.
        about: The objective in words.
        within_s: Of latency: longest time of a good answer; 0: an answer is good if it is no error.
        fewest: Bad requests in the long window without which it is none.
        page: Whether a person is called, in place of a ticket.
    """

    endpoint: str
    about: str
    share: float
    within_s: float
    long_s: int
    short_s: int
    fewest: int
    page: bool

    @property
    def name(self) -> str:
        """Name, unique among the alarms of an endpoint."""
        kind = f"slow-{self.within_s * 1000:g}ms" if self.within_s else "failing"
        return f"{kind}-{self.long_s}s-{'page' if self.page else 'ticket'}".replace(".", "-")

    @property
    def windows(self) -> dict[str, int]:
        """Name of each window -> its seconds, the long one first."""
        return {f"{self.name}-over-{seconds}s": seconds for seconds in (self.long_s, self.short_s)}

    @property
    def percentile(self) -> str:
        """Statistic of CloudWatch that is above `within_s` just where more than `share` is."""
        return f"p{100 * (1 - self.share):.10g}"

    def fewest_in(self, seconds: int) -> int:
        """Return the bad requests without which a window is no alarm."""
        return self.fewest if seconds == self.long_s else 1

    def told(self, *seconds: int) -> str:
        """Return what it means that a window, or both, are over the limit."""
        spans = " and in ".join(f"{each} s" for each in seconds)
        bad = "slow" if self.within_s else "failed"
        return f"Over {100 * self.share:.6g}% of requests {bad} in {spans}: {self.about}."
