"""The pages of feature views."""
