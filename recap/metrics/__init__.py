"""Predictions against gold: scores of a fold, their mean and spread, calibration, abstention.

Records in, numbers out; no model, no run folder, no verb.
"""
