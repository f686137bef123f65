"""Addresses that are not on the internet."""

from __future__ import annotations

from ipaddress import IPv4Network

_PRIVATE = [IPv4Network(each) for each in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")]


def is_private_network(text: str) -> bool:
    """Return whether a text is a network of addresses that are not on the internet."""
    try:
        network = IPv4Network(text)
    except ValueError:
        return False
    return any(network.subnet_of(each) for each in _PRIVATE)
