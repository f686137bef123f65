"""Variants of a registered version: made, measured, chosen under its gates, registered."""
