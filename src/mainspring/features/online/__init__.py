"""The online read: the same features as the offline read, for the entities of a request, as of now."""

from mainspring.features.online.reader import OnlineReader, OnlineRows

__all__ = ["OnlineReader", "OnlineRows"]
