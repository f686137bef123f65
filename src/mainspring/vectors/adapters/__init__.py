"""Adapters of the ports in `mainspring.vectors.ports`; only `mainspring.project` chooses among them."""
