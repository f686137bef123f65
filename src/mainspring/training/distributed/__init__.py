"""Launching of a training in several processes: what a runner is asked, and what it tells."""
