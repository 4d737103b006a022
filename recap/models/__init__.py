"""Language models: loading, tuning, the Lightning module, checkpoints, export.

Knows data and tasks, and no run folder; ``folds`` and ``runs`` build from it.
"""
