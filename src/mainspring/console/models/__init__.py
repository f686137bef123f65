"""The pages of the registry: models, their versions, and the card of each."""
