"""What the tests of a session share."""

from __future__ import annotations

import pytest
from session_world import World


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.session.close(5)
