"""The ``prompt`` verb: language models that are asked, not trained, and what they cost."""
