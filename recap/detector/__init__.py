"""Trained models put to use: what a client turn does, and why."""
