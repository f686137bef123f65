"""Runtime of edge packages: verify a signed package, compute its features, run its model. No server is needed."""

from mainspring_edge.errors import EdgeError, InvalidRow, Refused, SelfTestFailed
from mainspring_edge.package import Package, open_package
from mainspring_edge.runtime import Device, load

__all__ = ["Device", "EdgeError", "InvalidRow", "Package", "Refused", "SelfTestFailed", "load", "open_package"]
