"""Versions of models by name: brought, composed, tried, decided upon, promoted, moved."""
