"""Simulation of an endpoint under a load: the gateway's own batcher and scaling policy, in virtual time."""
