"""Anytime-valid tests between randomised arms: each may be looked at after every request, and stopped at any look.

Every test returns a log e-value. Under its null hypothesis the e-value reaches 1/alpha at any time with probability at
most alpha (Ville, 1939). Counts and sums by stratum suffice for each test, and a stratum is what was observed while the
probability of the candidate was the same. Why this is valid, and when not: docs/explanation/rollout-statistics.md.
"""
