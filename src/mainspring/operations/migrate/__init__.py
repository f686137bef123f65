"""A project from one profile to another: rows, files and states, compared once they are there."""
