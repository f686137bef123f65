"""Helpers of the tests: README.md in this folder says what there is."""
