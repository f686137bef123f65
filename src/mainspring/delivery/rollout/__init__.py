"""Rollouts: a candidate takes a share of an endpoint's requests, and stays or goes on evidence."""
