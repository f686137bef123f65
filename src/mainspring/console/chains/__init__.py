"""Chains of answers: their list, and one with its newest answers."""
