"""The page of one prediction: everything that made it."""
