"""A stand-in in a process of its own, as a context manager. Imports neither the SDK nor the engine."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import urllib.request
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
        moves: int | None = None,
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
        if moves is not None:
            self._command += ["--moves", str(moves)]
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

    def befall(self, **faults: float) -> dict[str, int]:
        """Have something happen to it; how many answers and hand-overs it will still lose.

        Args:
            faults: `refuse_seconds`, `let_pass_seconds`; from now on `lost_answers`, `lost_handovers` of them are lost.
        """
        request = urllib.request.Request(
            f"{self._claims['server_url']}/standin/faults",
            json.dumps(faults).encode(),
            {"Authorization": f"Bearer {self.env['HATCHET_CLIENT_TOKEN']}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    @property
    def grpc_port(self) -> int:
        """Where its gRPC side listens."""
        return int(self._claims["grpc_broadcast_address"].rpartition(":")[2])

    @property
    def _claims(self) -> dict[str, str]:
        claims = self.env["HATCHET_CLIENT_TOKEN"].split(".")[1]
        return json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))

    def expired_token(self) -> str:
        """A token of this engine that was good until a minute ago."""
        from .tokens import mint

        held = self._claims
        return mint(held["server_url"], held["grpc_broadcast_address"], seconds=-60.0)
