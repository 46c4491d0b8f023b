"""Sessions: refresh, list, revoke, log out."""
