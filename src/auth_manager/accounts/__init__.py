"""Accounts: register, profile, deletion."""
