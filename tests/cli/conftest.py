"""Commands as a person runs them, in this process."""

from __future__ import annotations

import pytest

from cb2_assist.cli import main


@pytest.fixture
def call(capsys):
    """Run a command: exit code, stdout, stderr."""

    def run(*words):
        with pytest.raises(SystemExit) as stopped:
            main([str(w) for w in words])
        printed = capsys.readouterr()
        return stopped.value.code, printed.out, printed.err

    return run
