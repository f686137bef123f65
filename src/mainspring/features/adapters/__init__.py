"""Adapters of online stores."""
