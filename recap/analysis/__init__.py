"""What annotated dialogues tell: pure functions on records, no files."""
