"""The training loop for networks: epochs, checkpoints, early stopping, going on after a kill."""
