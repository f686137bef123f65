"""Migration of a project from one profile to another: rows, files and states, compared after the copy."""
