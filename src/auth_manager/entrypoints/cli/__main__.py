"""`python -m auth_manager.entrypoints.cli`."""

from auth_manager.entrypoints.cli import main

main()
