"""Load tests: generation, measurement, and the gateway's own metrics."""
