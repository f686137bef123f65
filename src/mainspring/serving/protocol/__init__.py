"""Requests and responses: tensors, their types and checks, and how they travel."""
