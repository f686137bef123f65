"""Streams: their list, and one with its course over time."""
