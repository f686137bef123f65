"""A thread that listens for a preemption while a training goes on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import TracebackType

from mainspring.training.preemption.notices import Notice, PreemptionNotices, Unheard

_WAIT_S = 5.0  # of a look, and after one that failed
_TELL_AFTER = 3  # failed looks in a row
log = logging.getLogger("mainspring")


class Watch:
    """Calls `heard` with each notice, until the block ends or an end is announced.

    A service that does not answer is logged once; listening goes on.
    """

    def __init__(
        self, notices: PreemptionNotices, heard: Callable[[Notice], None], *, again_s: float = _WAIT_S
    ) -> None:
        self._notices, self._heard, self._again_s = notices, heard, again_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="preemption", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()  # a look may still wait: the thread ends after it

    def _listen(self) -> None:
        failed = 0
        while not self._ended.is_set():
            try:
                notice = self._notices.look(_WAIT_S if failed == 0 else 0.0)
                failed = 0
            except Unheard as error:
                failed += 1
                if failed == _TELL_AFTER:
                    log.warning("%s A preemption would come as a surprise.", error.what)
                self._ended.wait(self._again_s)
                continue
            if notice is not None and not self._ended.is_set():
                self._heard(notice)
                if notice.ends:
                    return
