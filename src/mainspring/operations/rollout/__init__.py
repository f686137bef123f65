"""Rollouts by name: plan, start, look at, end, and carry out."""
