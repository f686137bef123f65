"""The page of a hyperparameter search: trials, best trial, and importance of the parameters."""
