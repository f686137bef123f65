"""Vocabulary shared by all packages: ids, instants and clocks, errors, column types, expressions, files, locks,
settings.
"""
