"""Adapters of usage."""

from __future__ import annotations

from collections.abc import Mapping

from mainspring.project.backends.base import Build, in_catalog

USAGE_STORES: Mapping[str, Build] = in_catalog("cost", "CatalogUsage", extra="local")
