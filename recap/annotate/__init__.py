"""Files of dialogues annotated: streamed, resumed, shared out."""
