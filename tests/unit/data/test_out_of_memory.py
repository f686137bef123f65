"""An allocation that fails is told as that: nothing of the data is damaged, and nothing is to be restored."""

from __future__ import annotations

import errno

import duckdb
import pyarrow as pa
import pytest

from mainspring.core.errors import Corrupt, StorageFull
from mainspring.data.adapters.deltaerrors import delta_errors
from mainspring.data.duck import duck_errors


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        pa.ArrowMemoryError("malloc of size 1024 failed"),
        OSError(errno.ENOMEM, "Cannot allocate memory (os error 12)"),
        BaseException("PanicException: memory allocation of 1024 bytes failed"),
    ],
)
def test_by_the_lake(error: BaseException) -> None:
    with pytest.raises(StorageFull, match="not enough memory for /lake/orders") as told, delta_errors("/lake/orders"):
        raise error
    assert told.value.fix
    assert "restore" not in str(told.value)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("std::bad_alloc"),
        duckdb.IOException('IO Error: Cannot open file "x.parquet": Cannot allocate memory'),
        duckdb.Error("std::bad_alloc"),
    ],
)
def test_by_the_engine(error: Exception) -> None:
    with pytest.raises(StorageFull, match="not enough memory for orders"), duck_errors("orders"):
        raise error


def test_a_quota_is_no_want_of_memory() -> None:
    with pytest.raises(StorageFull, match="No space left"), delta_errors("/lake/orders"):
        raise OSError(errno.EDQUOT, "Disk quota exceeded (os error 122)")


def test_damage_is_still_damage() -> None:
    with pytest.raises(Corrupt), delta_errors("/lake/orders"):
        raise OSError("Parquet error: EOF: file size of 0 is less than footer")
