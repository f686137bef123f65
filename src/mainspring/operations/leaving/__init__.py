"""Export of a whole project in open formats, which need nothing of this package to be read."""
