"""Prompts: their list, one with its versions, and two versions side by side."""
