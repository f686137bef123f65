"""Hyperparameter search: trials of a model's parameters, and the study that stores them."""
