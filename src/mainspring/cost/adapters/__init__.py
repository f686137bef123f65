"""Adapters of the ports of `mainspring.cost`."""
