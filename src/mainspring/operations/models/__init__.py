"""Versions of models by name: import, composition, probing, decisions, promotion."""
