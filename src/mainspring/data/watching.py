"""Progress of a running DuckDB query."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

Share = Callable[[float], None]

_EVERY_S = 0.1


@contextmanager
def watching(con: duckdb.DuckDBPyConnection, progress: Share | None) -> Iterator[None]:
    """Call `progress` with the running query's completed share, from another thread, inside the block."""
    if progress is None:
        yield
        return
    con.execute("SET enable_progress_bar = true")
    con.execute("SET enable_progress_bar_print = false")
    over = threading.Event()

    def tell() -> None:
        while not over.wait(_EVERY_S):
            progress(min(max(con.query_progress(), 0.0) / 100.0, 1.0))

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()
