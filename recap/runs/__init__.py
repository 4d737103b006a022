"""A run on disk: its folder, history, saved models, trackers, model card.

``folds`` writes through it, verbs read through it; it starts no training.
"""
