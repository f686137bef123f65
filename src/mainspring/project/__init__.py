"""The composition root: settings become adapters, adapters become services."""

from mainspring.project.composition import Project, open_project

__all__ = ["Project", "open_project"]
