"""Training loop for networks: epochs, checkpoints, early stopping, and resumption after a kill."""
