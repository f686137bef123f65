"""Collections: their list, and one with its measures and a search in it."""
