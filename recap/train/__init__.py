"""The ``train`` verb: fine-tuning under cross-validation."""
