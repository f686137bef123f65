"""Features computed by Python functions of the project: their code, their process, and their derived tables."""
