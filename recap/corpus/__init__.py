"""The ``corpus`` verb: what a corpus of dialogues holds, a module an action."""
