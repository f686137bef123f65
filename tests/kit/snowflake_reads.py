"""Tests for the environment of Snowflake's connector: random histories, read there and here."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from kit.histories import History, histories
from kit.snowflake_warehouse import bucket, keys, opened, server
from kit.warehouse_reads import FEW, check_loaded
from mainspring.data.adapters.warehouse_snowflake import SnowflakeWarehouse

__all__ = ["bucket", "keys", "opened", "server"]


@FEW
@given(history=histories(), data=st.data())
def test_a_read_there_is_the_local_read(
    opened: SnowflakeWarehouse, tmp_path: Path, history: History, data: st.DataObject
) -> None:
    check_loaded(opened, history, data, tmp_path)
