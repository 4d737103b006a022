"""How a model computes: shared prefixes, loss, decoding, scored labels.

The rest of ``models`` comes in; outside it the module and the detector use it through them.
"""
