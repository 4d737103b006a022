"""From files to examples: readers, corpora, folds, and the batches that a model is trained on.

Knows tasks and no model; every layer above may come in.
"""
