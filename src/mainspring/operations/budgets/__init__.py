"""Budgets: where they stand, the incidents that say so, and what acts once one is exceeded."""
