"""Ranks that hang, told from those that merely wait for them."""

from __future__ import annotations

from collections.abc import Mapping

from mainspring.training.loop.beats import COMPUTING, OUTSIDE, WAITING, Beat

_OUTSIDE = 10  # times as long: before the loop the first rank alone checks the data and writes its run
_LONGEST_LOOK_S = 1.0  # between two looks; a longer pause was the watcher's own


class Silences:
    """How long each rank has told nothing, in time that its watcher has seen pass.

    Args:
        silence_s: Seconds without a beat after which a rank counts as hanging.
    """

    def __init__(self, silence_s: float) -> None:
        self._silence_s = silence_s
        self._last: dict[int, Beat] = {}
        self._silent_s: dict[int, float] = {}

    def look(self, beats: Mapping[int, Beat], passed_s: float) -> None:
        """Take the beats of the ranks that run, `passed_s` seconds after the last look."""
        for rank, beat in beats.items():
            silent = self._silent_s.get(rank, 0.0) + min(passed_s, _LONGEST_LOOK_S)
            self._silent_s[rank] = silent if self._last.get(rank) == beat else 0.0
        self._last = dict(beats)

    def hanging(self, stopped: Mapping[int, bool], *, first_ended: bool = False) -> list[int]:
        """Return the ranks that hang.

        Of ranks that are silent, those that a signal has stopped, else those in their own work. If all that are silent
        wait for others, those that have not come to the loop for ten times as long, else those that completed the
        fewest steps. After the end of the first rank, those that have not ended for ten times as long.

        Args:
            stopped: Whether a process is stopped, by rank.
            first_ended: Whether the first rank, which alone has work after the loop, has ended.
        """
        silent = {rank: beat for rank, beat in self._last.items() if self._silent_s[rank] >= self._silence_s}
        waiting = [rank for rank, beat in silent.items() if beat.does == WAITING]
        longest = max((self._silent_s[rank] for rank in (silent if first_ended else waiting)), default=0.0)
        late = longest >= _OUTSIDE * self._silence_s
        kinds = [
            [rank for rank in silent if stopped.get(rank)],
            [rank for rank, beat in silent.items() if beat.does == COMPUTING],
            [rank for rank, beat in self._last.items() if late and beat.phase == OUTSIDE],
        ]
        if found := next(filter(None, kinds), None):
            return found
        if len(waiting) < len(self._last):  # some still beat: they will come
            return []
        fewest = min((beat.step for beat in silent.values()), default=0)
        return [rank for rank, beat in silent.items() if beat.step == fewest]

    def why(self, beat: Beat) -> str:
        """Return a sentence on a rank that hangs, of its last beat."""
        return f"told nothing for {self._silence_s:g} s after step {beat.step}"

    def clear(self) -> None:
        """Forget the ranks: others are started."""
        self._last, self._silent_s = {}, {}
