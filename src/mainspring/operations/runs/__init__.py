"""Training runs: found, and closed when their process has ended."""
