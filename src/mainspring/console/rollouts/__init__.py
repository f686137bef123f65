"""Rollouts in the console: the list, and one rollout with its plan, decisions and evidence over time."""
