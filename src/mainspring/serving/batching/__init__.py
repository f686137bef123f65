"""Which waiting requests run together, and which are refused."""
