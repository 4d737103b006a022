"""The card of a model, from what is known of its run."""
