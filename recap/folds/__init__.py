"""A run in the making: partition, the folds one after the other, training, merging, results.

Verbs that make runs come in through ``fold``, ``partition`` and ``results``.
"""
