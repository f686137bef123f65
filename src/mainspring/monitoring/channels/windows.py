"""Windows of equal length: sketches of hours or of training days, added up and laid out as arrays over time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mainspring.core.time import DAY
from mainspring.stats.sketches import COUNTS, MOMENTS, WIDTH, Pairs, Sketch

MOST_WINDOWS = 400
WEEK = 7 * DAY

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Span:
    """Sketch of the rows of `[start, end)`, UTC epoch microseconds.

    Attributes:
        training: Whether the rows are training data; their number then says nothing about live traffic.
    """

    start: int
    end: int
    sketch: Sketch
    pairs: Pairs | None = None
    training: bool = False


@dataclass(frozen=True, eq=False, slots=True)
class Windows:
    """Consecutive windows, the first axis of each array; a window without rows has zeros.

    Attributes:
        starts: UTC epoch microseconds, in steps of `width`.
        counts: Shape (windows, columns, len(COUNTS)).
        bins: Shape (windows, columns, WIDTH).
        sums: Shape (windows, columns, MOMENTS).
        paired: Columns of the joint summaries.
        products: Shape (windows, paired, paired); zeros where no pairs were kept.
        training: Windows of training data.
        usual: Windows that may serve as history: with rows, and outside confirmed incidents.
        traffic: Rows of all versions together, shape (windows,).
        part: Part of the traffic that these rows are, shape (windows,).
        steady: Windows that may serve as history of live traffic, whichever version served it.
    """

    columns: tuple[str, ...]
    paired: tuple[str, ...]
    width: int
    starts: npt.NDArray[np.int64]
    counts: Floats
    bins: Floats
    sums: Floats
    products: Floats
    training: Bools
    usual: Bools
    traffic: Floats
    part: Floats
    steady: Bools

    @property
    def rows(self) -> Floats:
        """Number of rows, shape (windows,)."""
        most: Floats = self.counts[:, :, 0].max(axis=1, initial=0.0)
        return most

    def __len__(self) -> int:
        return len(self.starts)


def lay_out(
    spans: Iterable[Span],
    columns: Sequence[str],
    *,
    width: int = DAY,
    until: int | None = None,
    incidents: Sequence[tuple[int, int]] = (),
    traffic: Mapping[int, tuple[int, float]] | None = None,
    most: int = MOST_WINDOWS,
) -> Windows:
    """Return the windows from the first span to the last, at most the newest `most`.

    Args:
        spans: In any order, none longer than `width`; where live rows are known, training rows of the window are left
            out. Columns that a sketch lacks count as absent.
        width: Length of a window, µs.
        until: End of the last window; later spans, such as of a window that is not over, are left out.
        incidents: Start and end of confirmed incidents: their windows are no history.
        traffic: Sketched rows of all versions, and the requests that their logged rows stand for, by the start of the
            window; by default the spans are all there is.
    """
    kept = [span for span in spans if until is None or span.end <= until]
    live = {span.start // width for span in kept if not span.training}
    kept = [span for span in kept if not (span.training and span.start // width in live)]
    if not kept:
        return _empty(columns, width)
    last = max(span.start // width for span in kept) if until is None else until // width - 1
    first = max(min(span.start // width for span in kept), last - most + 1)
    size, places = last - first + 1, {name: place for place, name in enumerate(columns)}
    counts = np.zeros((size, len(columns), len(COUNTS)))
    bins, sums = np.zeros((size, len(columns), WIDTH)), np.zeros((size, len(columns), MOMENTS))
    with_pairs = {name for span in kept if span.pairs is not None for name in span.pairs.columns}
    paired = tuple(name for name in columns if name in with_pairs)
    pair_places = {name: place for place, name in enumerate(paired)}
    products = np.zeros((size, len(paired), len(paired)))
    training = np.zeros(size, bool)
    for span in kept:
        window = span.start // width - first
        if window < 0:
            continue
        mine = [at for at, name in enumerate(span.sketch.columns) if name in places]
        theirs = [places[span.sketch.columns[at]] for at in mine]
        counts[window, theirs] += span.sketch.counts[mine]
        bins[window, theirs] += span.sketch.bins[mine]
        sums[window, theirs] += span.sketch.sums[mine]
        training[window] = span.training
        if span.pairs is not None:
            mine = [at for at, name in enumerate(span.pairs.columns) if name in pair_places]
            theirs = [pair_places[span.pairs.columns[at]] for at in mine]
            products[window][np.ix_(theirs, theirs)] += span.pairs.products[np.ix_(mine, mine)]
    starts = (first + np.arange(size, dtype=np.int64)) * width
    own = counts[:, :, 0].max(axis=1, initial=0.0)
    known = np.array([(traffic or {}).get(start, (0, 0.0)) for start in starts.tolist()], float)
    counted = known[:, 1] > 0
    whole, stands_for = (np.where(counted, each, own) for each in known.T)
    outside = np.ones(size, bool)
    for start, end in incidents:
        outside &= ~((starts < end) & (starts + width > start))
    part = np.where(training, 1.0, np.minimum(own / np.maximum(whole, 1.0), 1.0))
    return Windows(
        tuple(columns), paired, width, starts, counts, bins, sums, products, training,
        usual=(own > 0) & outside, traffic=stands_for, part=part,
        steady=(counted | ~training & (own > 0)) & outside,
    )  # fmt: skip


def _empty(columns: Sequence[str], width: int) -> Windows:
    size = len(columns)
    return Windows(
        tuple(columns),
        (),
        width,
        np.zeros(0, np.int64),
        np.zeros((0, size, len(COUNTS))),
        np.zeros((0, size, WIDTH)),
        np.zeros((0, size, MOMENTS)),
        np.zeros((0, 0, 0)),
        np.zeros(0, bool),
        np.zeros(0, bool),
        np.zeros(0),
        np.zeros(0),
        np.zeros(0, bool),
    )
