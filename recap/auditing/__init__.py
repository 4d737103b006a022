"""What a trained model has kept of its training texts, measured."""
