"""Logging in: limits, password, session."""
