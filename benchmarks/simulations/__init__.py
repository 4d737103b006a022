"""Simulations of the tests and intervals that a report prints, under a truth that is known."""
