"""The lake's side of materialisation: a source's ingested rows and tiles, and their changes."""
