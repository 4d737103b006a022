"""From predictions to scores, and from the scores of folds to their mean and spread."""
