"""What ``python -m recap.corpus`` can do, a module an action."""
