"""Profiles: addresses of backends, their adapters, and checks that they can be reached."""
