"""Logs of messages, and what their messages hold."""
