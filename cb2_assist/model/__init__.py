"""Views to raw scores: the network, its checkpoints and cards, the predictor. torch lives here."""
