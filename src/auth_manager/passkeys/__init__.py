"""Passkeys over HTTP: registering them, signing in with them, looking after them."""
