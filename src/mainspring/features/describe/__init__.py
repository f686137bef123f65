"""Feature views for people: definitions in words, what identifies a person, how values are distributed."""
