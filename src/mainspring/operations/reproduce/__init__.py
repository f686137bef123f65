"""Reproduction of a training run, and comparison of the results."""
