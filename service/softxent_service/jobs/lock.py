"""Lock of a runner id: DBOS gives back to an id what it left half done, so two would share it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
from pathlib import Path
from typing import Any

import sqlalchemy as sa


class Lock:
    """Held while a runner lives, by the operating system or by PostgreSQL; it dies with it."""

    def __init__(self, url: str, runner: str) -> None:
        self._url = sa.make_url(url)
        self._runner = runner
        self._held: Any = None

    def take(self) -> bool:
        """Return whether the lock is held now."""
        if self._held is not None and not self._lives():
            # Forgotten before it is taken again, which may fail for as long as the server is away.
            self._held = None
        if self._held is None:
            self._held = self._take_file() if self._is_file else self._take_server()
        return self._held is not None

    def release(self) -> None:
        """Let another runner take it."""
        held, self._held = self._held, None
        if held is not None:
            with contextlib.suppress(sa.exc.SQLAlchemyError):
                held.close()

    @property
    def _is_file(self) -> bool:
        return self._url.get_backend_name() == "sqlite"

    def _lives(self) -> bool:
        if self._is_file:
            return True
        try:
            self._held.execute(sa.text("select 1"))
            self._held.commit()
        except sa.exc.SQLAlchemyError:
            # The lock went with the connection.
            with contextlib.suppress(Exception):
                self._held.invalidate()
                self._held.close()
            return False
        return True

    def _take_file(self) -> Any:
        name = hashlib.sha256(self._runner.encode()).hexdigest()[:16]
        file = Path(f"{self._url.database}.{name}.lock").open("a")  # noqa: SIM115 - held
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        return file

    def _take_server(self) -> Any:
        number = int.from_bytes(hashlib.sha256(self._runner.encode()).digest()[:8], signed=True)
        engine = sa.create_engine(
            self._url.set(drivername="postgresql+psycopg"), poolclass=sa.pool.NullPool
        )
        connection = engine.connect()
        held = connection.execute(
            sa.text("select pg_try_advisory_lock(:n)"), {"n": number}
        ).scalar()
        connection.commit()
        if held:
            return connection
        connection.close()
        return None
