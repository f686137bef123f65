"""Pure statistics: metrics, reference profiles with mergeable counts, drift tests. NumPy only; no I/O, no clock."""
