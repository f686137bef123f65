"""A project's own modules: import, collection, check, `apply`, and lookup by name."""
