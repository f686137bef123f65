"""What is written down about a model for those who answer for it."""
