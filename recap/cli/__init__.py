"""The command line: the one border to Hydra, exit codes, messages.

Verbs come in through ``command``; only ``compose`` and ``command`` know Hydra.
"""
