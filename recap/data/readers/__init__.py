"""One reader a family of formats; ``registry`` finds them by name.

A reader yields records and notes bad rows; nothing but ``data`` calls it by its module.
"""
