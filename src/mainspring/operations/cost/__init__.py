"""Cost: what a project used of its machines, by whom, and what that cost."""
