"""Ends of ranks, and the errors that they keep for their launcher."""

from __future__ import annotations

import json
import signal
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from mainspring.core import errors
from mainspring.core.errors import MainspringError, causes
from mainspring.training.distributed.logs import last_lines, said_last
from mainspring.training.distributed.ports import LOGS
from mainspring.training.loop.signals import Interrupted

ERRORS = "error-{}.json"
_LONGEST = 2000  # characters of a message, which goes through a pipe in one piece
_CAUSE_S = 5.0  # after a rank that lost a peer, until the peer must have shown why
ORDERLY = 3  # exit code of a rank that wrote a checkpoint after a signal
# Of gloo and of NCCL, in a rank whose peer is gone.
_LOST_PEER = (
    "closed by peer",
    "connection reset",
    "broken pipe",
    "remote process exited",
    "connection was likely closed",
)
_LOST_PEER_OF_TREES = ("src/collective/", "socket recv error", "socket send error", "connecting to rank")


@dataclass(frozen=True, slots=True)
class End:
    """End of a rank.

    Args:
        code: Exit code, or the negative number of the signal that killed it.
        error: `kind`, `what`, `fix` and more of the error that it kept; `printed` are its last lines, where its error
            does not say all.
        at: Instant of the error by the clock that all processes share.
        seen: Instant at which its end was seen.
        why: Sentence on its end, if the code does not say it.
    """

    rank: int
    code: int
    error: dict[str, Any] = field(default_factory=dict)
    at: float = field(default_factory=time.monotonic)
    seen: float = field(default_factory=time.monotonic)
    why: str = ""

    @property
    def well(self) -> bool:
        return self.code == 0

    @property
    def orderly(self) -> bool:
        return self.code == ORDERLY

    @property
    def killed(self) -> bool:
        return self.code < 0

    @property
    def lost_peer(self) -> bool:
        return bool(self.error.get("lost_peer"))


def keep_error(folder: Path, rank: int, error: BaseException) -> None:
    """Write a rank's error for `end_of`, and print it to the rank's log."""
    traceback.print_exception(error)
    kind, said, fix = "MainspringError", f"{type(error).__name__}: {error}", None
    if isinstance(error, MainspringError):
        kind, said, fix = type(error).__name__, error.what, error.fix
    elif isinstance(error, KeyboardInterrupt):
        said = str(error)
    kept = {
        "ours": isinstance(error, MainspringError),
        "kind": kind,
        "what": said[:_LONGEST],
        "fix": fix,
        "preempted": isinstance(error, Interrupted) and error.preempted,
        "lost_peer": any(_says_lost(each) for each in causes(error)),
        "at": time.monotonic(),
    }
    file = folder / ERRORS.format(rank)
    beside = file.with_suffix(".partial")
    try:
        beside.write_text(json.dumps(kept), encoding="utf-8")
        beside.replace(file)
    except OSError:  # a full disk: the log or the code alone must say it
        traceback.print_exc()


def end_of(folder: Path, rank: int, code: int) -> End:
    """Return the end of a rank from its exit code and what it kept."""
    try:
        error = json.loads((folder / ERRORS.format(rank)).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        error = {}
    printed = last_lines(folder / LOGS.format(rank)) if code and not error.get("ours") else ""
    if code < 0:
        return End(rank, code, {"printed": printed}, why=f"was killed by {signal.Signals(-code).name}")
    if code and not error:
        error = {"kind": "MainspringError", "what": f"It ended with exit code {code}.", "fix": None}
    return End(
        rank,
        code,
        {**error, "printed": printed},
        error.get("at", time.monotonic()),
        why="lost its connection to the others",
    )


def cause(ends: Sequence[End], *, running: bool) -> End | None:
    """Return the end that made the others fail, once it is known.

    A rank that was killed comes before one with an error, which can be that of having lost it.

    Args:
        running: Whether a rank still runs.
    """
    bad = [end for end in ends if not end.well]
    if not bad:
        return None
    causes = [end for end in bad if end.killed] or [end for end in bad if not end.lost_peer]
    if causes:
        return min(causes, key=lambda end: end.at)
    return bad[0] if time.monotonic() - bad[0].seen > _CAUSE_S or not running else None


def said_at_stop(ends: Sequence[End]) -> tuple[str, bool]:
    """Return the words of the first rank that stopped in order, and whether a machine is preempted."""
    said = next((end.error["what"] for end in sorted(ends, key=lambda end: end.rank) if end.orderly), "")
    return said, any(end.error.get("preempted") for end in ends)


def error_of_rank(told: Mapping[str, Any]) -> MainspringError:
    """Return the error of a rank as one of this process, of the same kind, with the rank."""
    where = told.get("where", "").rstrip()
    who = f"Rank {told['rank']} of {told['size']}{where and f' {where}'}"
    return error_of({**told, "what": f"{who}: {told['what']}{said_last(told)}"})


def error_of(told: Mapping[str, Any]) -> MainspringError:
    """Return an error of another process as one of this process, of the same kind."""
    kind = getattr(errors, told["kind"], MainspringError)
    try:
        return cast("MainspringError", kind(told["what"], fix=told["fix"]))
    except TypeError:  # a kind with arguments of its own
        return MainspringError(told["what"], fix=told["fix"])


def _says_lost(error: BaseException) -> bool:
    text = str(error).lower()
    if type(error).__name__ in ("XGBoostError", "LightGBMError"):
        return any(each in text for each in _LOST_PEER_OF_TREES)
    return isinstance(error, RuntimeError) and any(each in text for each in _LOST_PEER)
