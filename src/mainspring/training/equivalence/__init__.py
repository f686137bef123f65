"""The proof that a bundle answers as its estimator did, in a fresh process."""
