"""Descriptions of feature views: definitions as formulas, personal columns, and distributions of values."""
