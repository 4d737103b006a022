"""The ``audit`` verb: what a trained model has kept of its training texts, measured."""
