"""Leaving: export, deletion, and changing one's mind."""
