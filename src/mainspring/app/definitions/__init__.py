"""A project's own modules: imported, collected, checked, applied, and found again by name."""
