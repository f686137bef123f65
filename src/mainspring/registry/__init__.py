"""The registry: runs, versions with aliases, and bundles, a model as signed files that cannot run code."""

from mainspring.registry.model import AliasMove, Bundle, Input, Manifest, ModelVersion, RunRecord

__all__ = ["AliasMove", "Bundle", "Input", "Manifest", "ModelVersion", "RunRecord"]
