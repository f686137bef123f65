"""Profiles: listed, and what they name checked."""
