"""Cursor to places that may be wrong: joins across contacts, cuts at necks. Sees labels, no EM."""
