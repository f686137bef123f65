"""Targets: places to which a project's endpoints are deployed, behind one port."""
