"""Dynamic batching: scheduling and admission of queued requests."""
