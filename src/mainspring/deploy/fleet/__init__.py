"""Fleets of devices: what each is to run, what it reports, and rollouts by rings with gates on health."""
