"""Readers: one module a file format, each turning its rows into dialogues or examples."""
