"""Governance: model cards and their parts."""
