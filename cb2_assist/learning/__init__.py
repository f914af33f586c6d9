"""Labels to a better model: export, training, evaluation."""
