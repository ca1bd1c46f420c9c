"""`python -m augkit.cli` is `augkit`."""

from augkit.cli import main

main()
