"""A PostgreSQL server of the tests' own, on this machine and for their time only."""

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Self


def binaries() -> Path | None:
    """Where Debian's package `postgresql`, or the PATH, has the newest server's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


class PostgresServer:
    """Starts with the block and is gone after it; `restart` ends every connection, as a real one does.

    The server refuses to run as root: then it runs as the user `postgres`, whom the package makes.
    """

    def __init__(self) -> None:
        found = binaries()
        assert found is not None
        self.binaries = found
        self.directory = Path(tempfile.mkdtemp(prefix="actlab-postgres-"))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.user = "postgres" if os.geteuid() == 0 else None
        self.password = "not a secret"

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://optuna@127.0.0.1:{self.port}/optuna"

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs besides the URL."""
        return {"PGPASSWORD": self.password}

    def __enter__(self) -> Self:
        self.directory.chmod(0o755)
        if self.user:
            shutil.chown(self.directory, self.user)
        secret = self.directory / "password"
        secret.write_text(self.password)
        secret.chmod(0o644)
        self._run(
            "initdb", "-U", "optuna", "--auth-local=trust", "--auth-host=scram-sha-256",
            f"--pwfile={secret}", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync",
        )  # fmt: skip
        self.start()
        self._run("createdb", "-h", str(self.directory), "-p", str(self.port), "-U", "optuna", "optuna", data=False)
        return self

    def start(self) -> None:
        options = f"-c listen_addresses=127.0.0.1 -c port={self.port} -c unix_socket_directories={self.directory}"
        self._run("pg_ctl", "-o", options, "-l", str(self.directory / "log"), "-w", "start")

    def stop(self, mode: str = "fast") -> None:
        self._run("pg_ctl", "-m", mode, "-w", "stop")

    def restart(self, mode: str = "fast") -> None:
        self.stop(mode)
        self.start()

    def _run(self, program: str, *arguments: str, data: bool = True) -> None:
        place = ["-D", str(self.directory / "data")] if data else []
        command = [str(self.binaries / program), *place, *arguments]
        # a daemon that inherits a pipe would keep it open
        subprocess.run(
            command, check=True, user=self.user, cwd=self.directory, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def __exit__(self, *_: object) -> None:
        self.stop("immediate")
        shutil.rmtree(self.directory, ignore_errors=True)
