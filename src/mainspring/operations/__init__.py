"""Use cases that the command line, the console and Python share: a module or package for each command of `--help`."""
