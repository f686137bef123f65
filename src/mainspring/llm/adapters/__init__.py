"""Adapters of upstreams: protocols of servers of language models."""
