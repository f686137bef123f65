"""The offline read: what was known of each observation's entities at its time, by DuckDB from the lake."""

from mainspring.features.offline.observed import observe
from mainspring.features.offline.read import point_in_time, point_in_time_pieces

__all__ = ["observe", "point_in_time", "point_in_time_pieces"]
