"""The ``predict`` verb: files of dialogues annotated; streamed, resumed, shared out."""
