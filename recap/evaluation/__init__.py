"""Scoring what is there already: saved models, predictions files, baselines and the cascade."""
