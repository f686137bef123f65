"""Notices of a cloud that it takes a machine back, by the machine's metadata service."""
