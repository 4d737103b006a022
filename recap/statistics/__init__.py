"""Numbers in, numbers out: intervals, tests, correlations, agreement, effect sizes, shares.

Each with a reference test; no verb, no file.
"""
