"""A CAVE server on this machine that computes its answers from a local volume."""
