"""The lake's side of materialisation: what of a source has landed, as rows and as tiles, and what has changed since."""
