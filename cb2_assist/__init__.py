"""Proofreading assistant for connectomics.

One decision flows through the packages in this order:

    cursor -> candidates -> views -> model -> suggestions -> decisions -> labels -> learning

`datasets` feeds the first half, `review` holds one person's session, `server`, `viewer` and the
page in `static/` show it. Points are nanometres in x, y, z order; segment ids are `int` in Python
and decimal text everywhere else.
"""

__version__ = "0.1.0"
