"""The gateway: Open Inference Protocol over the bundles that the routing table names."""

from mainspring.serving.model import Arm, Endpoint, Route

__all__ = ["Arm", "Endpoint", "Route"]
