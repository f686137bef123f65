"""Proof that a bundle's predictions equal its estimator's, in a fresh process."""
