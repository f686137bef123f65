"""Monitoring: what an endpoint's predictions were worth, once their labels are known, and how its inputs drift."""

from mainspring.monitoring.model import ColumnDrift as ColumnDrift
from mainspring.monitoring.model import LabelRows as LabelRows
from mainspring.monitoring.model import Window as Window
from mainspring.monitoring.ports import MonitorStore as MonitorStore

__all__ = ["ColumnDrift", "LabelRows", "MonitorStore", "Window"]
