"""Pages and API of API keys and of the audit log."""
