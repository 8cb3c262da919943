"""Training: from a config to a trained network in a run folder."""
