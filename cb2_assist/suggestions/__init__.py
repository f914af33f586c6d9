"""Raw scores to a ranked list that may be trusted: calibration, base rate, intervals."""
