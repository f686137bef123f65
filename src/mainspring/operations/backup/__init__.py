"""Encrypted backups of what a project cannot compute again, and their restoration."""
