"""Incidents: signals grouped by cause, opened, updated and closed; pure functions, and the port of their store."""
