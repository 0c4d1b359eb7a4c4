"""A stand-in in a process of its own, as a context manager. Imports neither the SDK nor the engine."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

PACKAGE = Path(__file__).resolve().parent


class StandinEngine:
    """Starts on entry and ends on exit; it ends as well when this process dies.

    `env` holds the environment variables that lead the SDK to it.
    """

    def __init__(
        self,
        version: str | None = None,
        worker_loss_seconds: float | None = None,
        *,
        verify_names: bool = False,
        cut_bulks: int = 0,
    ) -> None:
        self.env: dict[str, str] = {}
        self._command = [sys.executable, str(PACKAGE)]
        if version is not None:
            self._command += ["--version", version]
        if worker_loss_seconds is not None:
            self._command += ["--worker-loss-seconds", str(worker_loss_seconds)]
        if verify_names:
            self._command.append("--verify-names")
        if cut_bulks:
            self._command += ["--cut-bulks", str(cut_bulks)]
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        ready = self._process.stdout.readline()
        if not ready:
            raise RuntimeError(f"the stand-in ended with code {self._process.wait()} before it was ready")
        self.env = json.loads(ready)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        process = self._process
        assert process is not None
        process.communicate()
        process.wait()

    def kill(self) -> None:
        """End it as a crash would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def expired_token(self) -> str:
        """A token of this engine that was good until a minute ago."""
        from .tokens import mint

        claims = self.env["HATCHET_CLIENT_TOKEN"].split(".")[1]
        held = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
        return mint(held["server_url"], held["grpc_broadcast_address"], seconds=-60.0)
