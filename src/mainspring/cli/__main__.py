"""`python -m mainspring.cli`."""

from mainspring.cli.main import main

main()
