"""The offline read: what was known of each observation's entities at its time, by DuckDB from the lake."""

from mainspring.features.offline.outsize import point_in_time_pieces, point_in_time_to
from mainspring.features.offline.read import observe, point_in_time

__all__ = ["observe", "point_in_time", "point_in_time_pieces", "point_in_time_to"]
