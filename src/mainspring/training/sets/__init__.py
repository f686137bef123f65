"""Training sets: labelled observations with their features, split by time, weighed, and searched for leaks."""
