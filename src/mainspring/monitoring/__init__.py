"""Monitoring: quality of an endpoint's predictions once labels arrive, and feature drift."""

from mainspring.monitoring.model import ColumnDrift as ColumnDrift
from mainspring.monitoring.model import LabelRows as LabelRows
from mainspring.monitoring.model import Window as Window
from mainspring.monitoring.ports import MonitorStore as MonitorStore

__all__ = ["ColumnDrift", "LabelRows", "MonitorStore", "Window"]
