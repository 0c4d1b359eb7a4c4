"""`python -m scythe.cli`: the same as `scythe`."""

from scythe.cli import main

main()
