"""Adapters of delivery's ports."""
