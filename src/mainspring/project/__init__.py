"""The composition root: it builds adapters from settings, and services from adapters."""

from mainspring.project.composition import Project, open_project

__all__ = ["Project", "open_project"]
