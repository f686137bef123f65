"""Savings: pure functions from recorded use and prices to what would cost less."""
