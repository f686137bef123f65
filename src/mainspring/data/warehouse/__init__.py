"""Warehouses: databases outside of the project whose rows are read and joined there, and brought here."""
