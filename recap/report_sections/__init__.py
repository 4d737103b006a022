"""The sections of a report over run folders: tables, variance, comparison, calibration, errors."""
