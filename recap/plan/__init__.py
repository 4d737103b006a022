"""The ``plan`` verb: memory, operations, hours and disk of a run before it is begun."""
