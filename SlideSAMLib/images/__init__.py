"""Volumes as files: reading what people have, and writing label maps beside it. No torch here."""
