"""Service health: sampling of the gateway processes and of features, objectives, metrics."""
