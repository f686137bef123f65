"""Pipelines: steps run one at a time for other engines, and exports to them."""
