"""A running system seen from outside: asked, measured, looked at, demonstrated."""
