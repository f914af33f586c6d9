"""Which sites to ask first: pure functions of arrays, by name in one registry.

`registry.STRATEGIES` holds them all; `pool.Pool` is what they may look at.
"""
