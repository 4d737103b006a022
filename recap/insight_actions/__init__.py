"""What ``recap.insights`` does: one module an action, each gives a :class:`Findings`."""
