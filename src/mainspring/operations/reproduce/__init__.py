"""Training a run again, and comparing the result."""
