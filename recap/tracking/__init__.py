"""Where training tells how it goes: history.csv in the run folder, and W&B beside it."""
