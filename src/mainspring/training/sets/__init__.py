"""Training sets: labelled observations with features, split by time, weighted, and checked for leakage."""
