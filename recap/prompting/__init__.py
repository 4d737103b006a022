"""Language models that are asked, not trained: requests, answers, and what they cost."""
