"""Children that begin with everything imported: 300 of them cost what 30 new interpreters do.

``nursery.py MODULE`` imports MODULE and reads one line for each child: a named pipe, and the words
for ``MODULE.main``. It answers with the child's process id, and when that has ended, with its exit
code. The child's standard output is the named pipe. `Nursery` is the other end.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self


class Child:
    """One process, and what it prints."""

    def __init__(self, nursery: subprocess.Popen[str], pipe: Path, words: tuple[str, ...]) -> None:
        os.mkfifo(pipe)
        # opened first, so that what is printed before a kill stays to be read after it
        self._out = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        self._nursery, self.is_dead = nursery, False
        pipe_and_words = json.dumps([str(pipe), *words])
        nursery.stdin.write(f"{pipe_and_words}\n")
        nursery.stdin.flush()
        self._pid = int(nursery.stdout.readline())

    def prints(self, within_s: float) -> bool:
        """Whether something is there to be read, as soon as it is."""
        return bool(select.select([self._out], [], [], within_s)[0])

    def kill(self) -> str:
        """SIGKILL; what the child has printed until then."""
        os.kill(self._pid, signal.SIGKILL)
        code, self.is_dead = int(self._nursery.stdout.readline()), True
        assert code == -signal.SIGKILL
        text = b"".join(iter(lambda: os.read(self._out, 1 << 16), b""))
        os.close(self._out)
        return text.decode()


class Nursery:
    """Starts children, one after the other; a context manager."""

    def __init__(self, module: str, folder: Path) -> None:
        self._folder, self._children = folder, list[Child]()
        self._process = subprocess.Popen(
            [sys.executable, __file__, module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, *words: object) -> Child:
        """A child whose ``main`` gets these words."""
        pipe = self._folder / f"child-{len(self._children)}"
        self._children.append(Child(self._process, pipe, tuple(map(str, words))))
        return self._children[-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._children[-1:]:
            if not child.is_dead:
                child.kill()
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


def main() -> None:
    module = importlib.import_module(sys.argv[1])
    for line in sys.stdin:
        pipe, *words = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os.dup2(os.open(pipe, os.O_WRONLY), 1)
            module.main(words)
            os._exit(0)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
