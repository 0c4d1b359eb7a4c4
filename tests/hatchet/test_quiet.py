"""What the SDK logs in a worker is told in words, and not line by line."""

from __future__ import annotations

import logging
from pathlib import Path

import grpc
import grpc.aio
import hatchet_sdk
import pytest

from scythe.engines.hatchet import quiet


@pytest.fixture
def logger() -> logging.Logger:
    """The SDK's, as a process of Scythe's has it."""
    found = logging.Logger("hatchet")
    quiet.quieten(found)
    quiet.quieten(found)
    return found


@pytest.fixture
def said(logger: logging.Logger) -> list[str]:
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    logger.addHandler(Kept())
    return lines


def test_an_engine_that_is_away_is_told_once_without_a_traceback_and_so_is_that_it_is_back(
    logger: logging.Logger, said: list[str]
) -> None:
    for _ in range(2):
        for i in range(9):
            try:
                raise ConnectionError("recvmsg: Connection reset by peer")
            except ConnectionError:
                logger.warning(f"failed to send heartbeat ({i}): gone")
                logger.exception(f"⛔️ failed heartbeat ({i})")
        logger.warning("time since last successful heartbeat: 32.04s, expects 4s")
    logger.warning("time since last successful heartbeat: 5.10s, expects 4s")  # a busy moment
    assert said == [quiet._AWAY, "the Hatchet engine answers again"] * 2


def test_an_engine_that_refuses_a_heartbeat_is_told_with_its_answer(logger: logging.Logger, said: list[str]) -> None:
    refused = grpc.aio.AioRpcError(
        grpc.StatusCode.UNAUTHENTICATED, grpc.aio.Metadata(), grpc.aio.Metadata(), "invalid auth token"
    )
    for error in (refused, refused, ConnectionError()):
        try:
            raise error
        except Exception:
            logger.exception("failed to send heartbeat")
    assert said == ["the Hatchet engine refuses this worker's heartbeat (UNAUTHENTICATED: invalid auth token)"]


def test_a_function_that_logs_more_than_hatchet_takes_floods_no_log(logger: logging.Logger, said: list[str]) -> None:
    for _ in range(3000):
        logger.warning("log queue is full, dropping log message")
    logger.warning("interrupted read_with_interrupt task of action listener")
    assert len(said) == 1
    assert "the table `logs` has them all" in said[0]


def test_other_lines_pass_and_news_of_each_task_do_not(logger: logging.Logger, said: list[str]) -> None:
    logger.info("rx: start step run: 3")
    logger.error("could not start action listener")
    assert said == ["could not start action listener"]


def test_the_lines_are_those_of_the_sdk() -> None:
    source = "".join(path.read_text() for path in Path(hatchet_sdk.__file__).parent.rglob("*.py"))
    assert [begins for begins in quiet._SAID if f'"{begins}' not in source] == []
