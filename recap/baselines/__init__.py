"""Classifiers of another kind, to stand beside a language model on the same folds."""
