"""The pages of what the registry knows: models, their versions, and the card of each."""
