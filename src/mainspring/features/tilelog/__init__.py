"""The lake's side of materialisation: a source's landed rows and tiles, and their changes."""
