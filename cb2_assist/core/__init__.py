"""Nouns that every other package shares: points with units, records, channel order, errors."""
