"""Tests for the environment of BigQuery's client: random histories, read there and here."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from kit.bigquery_warehouse import key, opened, server
from kit.histories import History, histories
from kit.warehouse_reads import FEW, check_loaded
from mainspring.data.adapters.warehouse_bigquery import BigqueryWarehouse

__all__ = ["key", "opened", "server"]


@FEW
@given(history=histories(), data=st.data())
def test_a_read_there_is_the_local_read(
    opened: BigqueryWarehouse, tmp_path: Path, history: History, data: st.DataObject
) -> None:
    check_loaded(opened, history, data, tmp_path)
