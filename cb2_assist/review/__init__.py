"""One person's session at one dataset: what is on screen, what is selected, what was decided."""
