"""The connection to a Hatchet engine: built when it is first needed, checked before anything is written.

Every call of the SDK that needs an event loop runs on one loop, in a thread of its own. Knows
nothing of experiments.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from scythe.engines.hatchet.quiet import quieten
from scythe.engines.hatchet.sdk import load
from scythe.errors import SettingsError
from scythe.settings import hatchet_settings

if TYPE_CHECKING:
    from hatchet_sdk import Hatchet

T = TypeVar("T")

#: The oldest engine with slots for durable tasks of their own.
OLDEST_ENGINE = "v0.80.0"
_REACH_SECONDS = 5.0
_ANSWER_SECONDS = 10.0


def connect() -> Hatchet:
    """The client of the engine that the environment names: `HATCHET_CLIENT_TOKEN` and the SDK's other settings.

    Raises:
        SettingsError: no token, or none that the SDK takes.
    """
    return _client(os.environ.get("HATCHET_CLIENT_TOKEN"), hatchet_settings().embedded)


@cache
def _client(token: str | None, embedded: bool) -> Hatchet:
    load()
    from hatchet_sdk import ClientConfig, EmbeddedHatchetConfig, Hatchet
    from pydantic import ValidationError

    try:
        if embedded:
            return Hatchet.from_embedded(ClientConfig(logger=quiet_logger(), embedded=EmbeddedHatchetConfig()))
        return Hatchet(config=ClientConfig(logger=quiet_logger()))
    except ValidationError as error:
        said = "; ".join(str(e["msg"]).removeprefix("Value error, ") for e in error.errors())
        raise SettingsError(f"Hatchet cannot be used: HATCHET_CLIENT_TOKEN is missing or no token ({said})") from None


class _QuietLogger(logging.Logger):
    """A logger that travels with the configuration into the processes that the SDK starts, and sets those up."""

    def __reduce__(self) -> Any:
        return _in_process_of_the_sdk, ()


def _in_process_of_the_sdk() -> logging.Logger:
    """The logger, in the process that sends what became of tasks."""
    from scythe.engines.hatchet.sending import install

    install()
    return quiet_logger()


def quiet_logger() -> logging.Logger:
    """A logger for the SDK's configuration; its own tells of what went wrong alone from now on, not of each task."""
    quieten(logging.getLogger("hatchet"))
    return _QuietLogger("scythe.hatchet")


def check(hatchet: Hatchet) -> None:
    """Nothing, where the engine answers and is new enough.

    Raises:
        SettingsError: it cannot be reached, refuses the token, or is too old.
    """
    address = hatchet.config.host_port
    _reach(address, "is it running, and is HATCHET_CLIENT_TOKEN its own?")
    api = urlsplit(hatchet.config.server_url)
    api_port = api.port or (80 if api.scheme == "http" else 443)
    _reach(f"{api.hostname}:{api_port}", "that is its API: does HATCHET_CLIENT_SERVER_URL fit it?")
    version = _asked(hatchet.dispatcher.get_version(), hatchet)
    if _older(version):
        raise SettingsError(
            f"the Hatchet engine at {address} is {version or 'too old to tell its version'}; Scythe needs {OLDEST_ENGINE} or later: upgrade it"
        )


def _reach(address: str, hint: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), _REACH_SECONDS).close()
    except (OSError, ValueError) as error:
        raise SettingsError(f"the Hatchet engine at {address} cannot be reached ({error}): {hint}") from error


def _asked(question: Coroutine[Any, Any, T], hatchet: Hatchet) -> T:
    import grpc

    address = hatchet.config.host_port
    try:
        return on_loop(asyncio.wait_for(question, _ANSWER_SECONDS)).result()
    except TimeoutError as error:
        raise SettingsError(f"the Hatchet engine at {address} does not answer: is it overloaded?") from error
    except grpc.RpcError as error:
        code = error.code()  # pyright: ignore[reportAttributeAccessIssue]
        if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            raise SettingsError(
                f"the Hatchet engine at {address} refuses the token: it may have expired, or be another engine's; "
                "make a new one in its dashboard and set HATCHET_CLIENT_TOKEN"
            ) from error
        raise SettingsError(
            f"the Hatchet engine at {address} answers {code.name}: does HATCHET_CLIENT_TLS_STRATEGY fit it? "
            f"({error.details()})"  # pyright: ignore[reportAttributeAccessIssue]
        ) from error


def _older(version: str | None) -> bool:
    def numbers(text: str) -> tuple[int, ...]:
        return tuple(int(n) for n in text.removeprefix("v").split("-")[0].split("."))

    try:
        return version is None or numbers(version) < numbers(OLDEST_ENGINE)
    except ValueError:
        return False


# --- the loop ---------------------------------------------------------------------------------------


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True, name="scythe-hatchet").start()
    return loop


def on_loop(work: Coroutine[Any, Any, T]) -> Future[T]:
    """Runs a coroutine on the SDK's loop, from any thread."""
    return asyncio.run_coroutine_threadsafe(work, _loop())
