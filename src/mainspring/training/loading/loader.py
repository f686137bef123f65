"""Loader of rows that need not fit into memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from mainspring.core.errors import Invalid
from mainspring.training.loading.pace import Pace

if TYPE_CHECKING:
    import pyarrow as pa

    from mainspring.data.model import TableScan
    from mainspring.training.loading.columns import Columns, Values
    from mainspring.training.loading.epoch import Epoch
    from mainspring.training.loading.order import Order

    Path = str | os.PathLike[str]

_WINDOW_BYTES = 128 << 20
_MOST_CATEGORIES = 65_536


class Loader:
    """Rows of Parquet files, for `ms.fit_torch`, or as batches of NumPy arrays.

    Rows are decoded by threads ahead of the batches that take them. Memory holds two windows of rows and a part of a
    row group per lane, however many rows there are. A column that a file lacks is null there.

    Args:
        source: The path of a Parquet file or of a folder of such files, several paths, or a scan of a table of the
            lake (`project.scan`).
        inputs: Names of columns. A list is a matrix of shape (rows, columns) and type `dtype`, with NaN for null, true
            as 1, and timestamps as UTC epoch microseconds. A text is one column, of shape (rows,): `dtype` for
            fractions, int64 for all else; of shape (rows, size) for lists of a fixed size. A tuple of these is several
            inputs, each an argument of the module.
        targets: Names of columns likewise; no null among them. `None`: there are no targets.
        dtype: "float32" or "float64".
        categories: Texts of columns that are read as codes, in the order of the codes; or the names of such columns,
            whose texts are then collected in one pass, and sorted. In inputs 0 is null or another text, and codes begin
            at 1; in targets at 0.
        fill: Values in place of nulls, by column.
        window: Rows that are shuffled among each other; by default those that 128 MiB hold. If there are no more rows,
            all orders are equally likely. Otherwise a batch is drawn from as many row groups as the window holds, which
            are random ones.
        lanes: Parts of the rows that ranks read separately, at most. A number of ranks that divides it, with batches
            that it divides, reads every row once.
        threads: Row groups that are decoded at the same time.

    Raises:
        NotFound: There is no such file.
        Corrupt: A file is no Parquet, or is torn.
        Invalid: There is no such column, or no array can have its type.
    """

    def __init__(
        self,
        source: Path | Sequence[Path] | TableScan,
        *,
        inputs: Columns | tuple[Columns, ...],
        targets: Columns | None = None,
        dtype: str = "float32",
        categories: Mapping[str, Sequence[str]] | Sequence[str] = (),
        fill: Mapping[str, Any] | None = None,
        window: int | None = None,
        lanes: int = 8,
        threads: int = 2,
    ) -> None:
        from mainspring.training.loading.columns import Layout, array_of, names
        from mainspring.training.loading.files import Files

        if dtype not in ("float32", "float64"):
            raise Invalid(f"The numbers of a loader cannot be {dtype!r}.", fix='use "float32" or "float64".')
        if min(lanes, threads, 1 if window is None else window) < 1:
            raise Invalid(
                f"window={window}, lanes={lanes} and threads={threads} must be at least 1.",
                fix="leave them out, or give whole numbers from 1 on.",
            )
        self._files = Files(source)
        every, wanted = [*names(inputs)], [] if targets is None else [targets]
        self._files.check(name for each in (*every, *wanted) for name in ([each] if isinstance(each, str) else each))
        self.categories = self._categories(categories)
        of = self._files.types, dtype, self.categories
        target = None if targets is None else array_of(targets, *of, whole=True)
        self._layout = Layout([array_of(each, *of) for each in every], target, fill or {})
        for array in self._layout.arrays:
            for name in array.columns:
                self._files.check_types(name, array.takes)
        self.inputs, self.targets = len(every), targets is not None
        self.single = not isinstance(inputs, tuple)
        self.threads = threads
        self._groups = [group.rows for group in self._files.groups]
        self._window = window or max(1, _WINDOW_BYTES // max(1, self._layout.row_bytes))
        self._lanes = lanes
        self._settings = (inputs, targets, dtype, sorted(self.categories.items()), sorted((fill or {}).items()))

    def __len__(self) -> int:
        return sum(self._groups)

    def __repr__(self) -> str:
        return f"<loader of {len(self):,} rows in {len(self._groups):,} row groups of {len(self._files):,} files>"

    @property
    def row_bytes(self) -> int:
        """Bytes of a row in a batch."""
        return self._layout.row_bytes

    def batches(
        self, batch_size: int, *, seed: int = 0, epoch: int = 0, rank: int = 0, ranks: int = 1, start: int = 0
    ) -> Iterator[Any]:
        """Yield the batches of an epoch as NumPy arrays: `(inputs, targets)`, or inputs alone if there are no targets.

        Their order is a function of seed, epoch, `batch_size`, the files and the loader's settings. All ranks get
        equally many batches, each its share of every one: equal in size, but for a row. In a last batch that is
        smaller, a rank's share can be empty.

        Args:
            batch_size: Rows of a batch, over all ranks.
            start: Batches to leave out, as after a resumption.
        """
        if not 0 <= rank < ranks or start < 0:
            raise Invalid(
                f"rank={rank} of ranks={ranks}, or start={start}, is impossible.",
                fix="count ranks and batches from 0 on; a rank is below `ranks`.",
            )
        with closing(self.epoch(batch_size, Pace(), seed, epoch)) as loading:
            for first in range(start * batch_size, len(self), batch_size):
                count = min(batch_size, len(self) - first)
                share, more = divmod(count, ranks)
                begin = first + share * rank + min(rank, more)
                yield self._shaped(loading.take(begin, begin + share + (rank < more)))

    def stored(self, batch_size: int, *, begin: int = 0, end: int | None = None) -> Iterator[Any]:
        """Yield rows `begin` to `end` once, in the order of the files, by their names, as `batches` does."""
        until = len(self) if end is None else min(end, len(self))
        with closing(self.epoch(batch_size, Pace(), shuffled=False)) as loading:
            for first in range(begin, until, batch_size):
                yield self._shaped(loading.take(first, min(first + batch_size, until)))

    def matrix_columns(self) -> list[str]:
        """Return the columns of the one matrix that the inputs are.

        Raises:
            Invalid: They are something else.
        """
        if not (self.single and self._layout.arrays[0].matrix):
            raise Invalid("The inputs of the loader are no matrix.", fix='give a list of columns: inputs=["a", "b"].')
        return [*self._layout.arrays[0].columns]

    def target_column(self) -> str:
        """Return the first column of the targets."""
        return self._layout.arrays[-1].columns[0]

    def epoch(self, batch_size: int, pace: Pace, seed: int = 0, epoch: int = 0, *, shuffled: bool = True) -> Epoch:
        """Return the rows of an epoch, by their positions in it; it has to be closed."""
        from mainspring.training.loading.epoch import Epoch

        order = self.order(batch_size, seed, epoch, shuffled=shuffled)
        return Epoch(self._files, self._layout, order, pace, self.threads)

    def order(self, batch_size: int, seed: int = 0, epoch: int = 0, *, shuffled: bool = True) -> Order:
        """Return the order of an epoch."""
        from mainspring.training.loading.order import Order

        if batch_size < 1:
            raise Invalid(f"A batch of {batch_size} rows is impossible.", fix="use at least 1.")
        window = self._window if shuffled else max(batch_size, self._window // 8)
        return Order(self._groups, seed, epoch, batch_size=batch_size, window=window, lanes=self._lanes,
                     shuffled=shuffled)  # fmt: skip

    def digest(self) -> str:
        """Return a digest that identifies the rows, their order and their form."""
        text = repr((self._files.digest(), self._settings, self._window, self._lanes))
        return hashlib.sha256(text.encode()).hexdigest()

    def _shaped(self, arrays: list[Values]) -> Any:
        inputs = arrays[0] if self.single else tuple(arrays[: self.inputs])
        return (inputs, arrays[-1]) if self.targets else inputs

    def _categories(self, asked: Mapping[str, Sequence[str]] | Sequence[str]) -> dict[str, list[str]]:
        from mainspring.training.loading.columns import check_categories

        named = [asked] if isinstance(asked, str) else [*asked]
        self._files.check(named)
        for name in named:
            check_categories(name, self._files.types[name])
        if isinstance(asked, Mapping):
            return {name: [*texts] for name, texts in asked.items()}
        return self._seen(named) if named else {}

    def _seen(self, columns: list[str]) -> dict[str, list[str]]:
        """Return the texts of columns, sorted, in a pass over all rows."""
        import pyarrow as pa
        import pyarrow.compute as pc

        from mainspring.training.loading.columns import is_category
        from mainspring.training.loading.order import Span

        for name in columns:
            self._files.check_types(name, is_category)
        found: dict[str, set[str]] = {name: set() for name in columns}
        spans = (Span(place, 0, group.rows) for place, group in enumerate(self._files.groups))
        for batch in self._files.read(spans, columns):
            for name, seen in found.items():
                values: pa.Array[Any] = pc.unique(batch.column(name)).cast(pa.string())
                seen.update(text for text in values.to_pylist() if text is not None)
                if len(seen) > _MOST_CATEGORIES:
                    raise Invalid(
                        f"Column {name!r} has over {_MOST_CATEGORIES:,} texts.",
                        fix="leave it out, or derive coarser categories in a feature.",
                    )
        return {name: sorted(seen) for name, seen in found.items()}
