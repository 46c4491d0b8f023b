"""Authenticating again within a session."""
