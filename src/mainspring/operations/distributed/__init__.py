"""Training of a model in several processes: the launcher's side, and that of each rank."""
