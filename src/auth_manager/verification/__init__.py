"""Proving an address, and changing it."""
