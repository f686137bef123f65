"""Machines of one training that have no cluster to bring them together: who may come, and how they are asked."""
