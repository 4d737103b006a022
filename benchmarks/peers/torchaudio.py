"""Stands in for torchaudio, which LLaMA-Factory imports and uses for sound alone."""
