"""Use cases on model versions: import, composition, probing, decisions, cards, transfer."""
