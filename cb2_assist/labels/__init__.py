"""The durable event log behind decisions, and the views that the model saw."""
