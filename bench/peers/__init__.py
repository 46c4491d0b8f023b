"""Other services that do the same, set up as their own documentation says."""
