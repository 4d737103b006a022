"""Language models: loading, tuning, training, decoding, saving."""
