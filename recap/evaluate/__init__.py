"""The ``evaluate`` verb: saved models, predictions files, baselines and the cascade, scored."""
