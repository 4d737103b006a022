"""What a run needs, before it is begun: memory, operations, time and disk."""
