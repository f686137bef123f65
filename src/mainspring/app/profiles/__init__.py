"""Profiles: where each thing lives, which adapter that means, and whether it can be reached."""
