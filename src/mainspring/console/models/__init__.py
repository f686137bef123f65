"""The pages of the registry: models, versions and model cards."""
