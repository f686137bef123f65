"""Hyperparameter searches: a study, its worker processes, its report."""
