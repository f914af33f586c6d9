"""A PostgreSQL server of our own: a throw-away cluster in a temporary folder, on a socket."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PORT = 5432
_WAIT_S = "120"
_HANG_UP = (
    "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity"
    " WHERE datname = 'postgres' AND pid <> pg_backend_pid()"
)


def binaries() -> Path | None:
    """Where the server's programs lie; None: nowhere."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    if found:
        return found[-1].parent
    return Path(on_path).resolve().parent if on_path else None


def _unprivileged() -> dict[str, object]:
    """For `subprocess`: the server refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            who = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": []}
    raise RuntimeError("no user to run a server as")


def _fast_folder() -> str | None:
    """In memory where there is room; None: the usual place."""
    memory = Path("/dev/shm")
    has_room = memory.is_dir() and shutil.disk_usage(memory).free > 2_000_000_000
    return str(memory) if has_room else None


class Cluster:
    """A running server, until `stop`. Whoever is called owner needs no password; others do."""

    def __init__(self, programs: Path) -> None:
        self._programs, self._numbers = programs, itertools.count(1)
        self.folder = Path(tempfile.mkdtemp(prefix="cb2-pg-", dir=_fast_folder()))
        self._as = _unprivileged()
        if self._as:
            os.chown(self.folder, self._as["user"], self._as["group"])
        self.folder.chmod(0o755)
        options = ("-U", "owner", "--auth=trust", "-E", "UTF8", "--locale=C", "--no-sync")
        try:
            self._run("initdb", "-D", str(self.folder / "data"), *options)
            self._allow()
            self.start()
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def _allow(self) -> None:
        rules = "local all owner trust\nlocal all all scram-sha-256\n"
        (self.folder / "data" / "pg_hba.conf").write_text(rules)

    def _run(self, program: str, *words: str) -> None:
        done = subprocess.run(
            [str(self._programs / program), *words],
            cwd=self.folder,
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "HOME": str(self.folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=180,
            check=False,
            **self._as,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{program} failed: {done.stdout}")

    def start(self) -> None:
        """Start it and wait until it answers."""
        settings = {
            "listen_addresses": "''",
            "unix_socket_directories": str(self.folder),
            "fsync": "off",
            "full_page_writes": "off",
            "max_connections": "60",
            "shared_buffers": "32MB",
        }
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        log = str(self.folder / "log")
        where = ("-D", str(self.folder / "data"), "-w", "-t", _WAIT_S)
        self._run("pg_ctl", *where, "-l", log, "-o", f"-p {PORT} {options}", "start")

    def stop(self, how: str = "fast") -> None:
        """Stop it; ``immediate`` is like a crash."""
        where = ("-D", str(self.folder / "data"), "-w", "-t", _WAIT_S)
        self._run("pg_ctl", *where, "-m", how, "stop")

    def remove(self) -> None:
        """Stop it and leave nothing."""
        try:
            self.stop("immediate")
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, schema: str = "public", user: str = "owner") -> str:
        """A labels URL; stores in different schemas know nothing of each other."""
        return f"postgresql://{user}@/postgres?host={self.folder}&options=-csearch_path%3D{schema}"

    def sql(self, statement: str, schema: str = "public") -> list[tuple]:
        """Run a statement as the owner, past all our code."""
        import psycopg

        with psycopg.connect(self.url(schema), autocommit=True) as conn:
            done = conn.execute(statement)
            return done.fetchall() if done.description else []

    def script(self, statements: str) -> None:
        """Run several statements, all or none."""
        import psycopg

        with psycopg.connect(self.url()) as conn:
            conn.execute(statements)

    def new_schema(self) -> str:
        """An empty one, which is made much faster than a database; returns its name."""
        name = f"labels_{next(self._numbers)}"
        self.sql(f"CREATE SCHEMA {name}")
        return name

    def hang_up(self) -> None:
        """Break every connection."""
        self.sql(_HANG_UP)

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """Nobody reaches the server in the block."""
        import psycopg

        socket = self.folder / f".s.PGSQL.{PORT}"
        away = socket.with_name("away")
        with psycopg.connect(self.url(), autocommit=True) as conn:
            socket.rename(away)
            try:
                # after it, so that nobody comes back in between
                conn.execute(_HANG_UP)
                conn.close()
                yield
            finally:
                away.rename(socket)
