"""Setting up one-time passwords of an authenticator app, and removing them."""
