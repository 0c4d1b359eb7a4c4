"""What an editor offers between the quotes of an argument, as Pyright's language server answers it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

ENGINES = {"inline", "local", "hatchet"}
TABLES = {"scalars", "errors", "tasks", "result_file_refs"}
STEPS = {"bumpmajor", "bumpminor", "bumppatch", "keep", "auto"}

#: A line of a script, and what is offered where the cursor stands between its empty quotes.
OFFERED: Mapping[str, set[str]] = {
    'scythe.read("e", table="")': TABLES,
    'scythe.scan("e", version="")': {"all"},
    'scythe.rows("e", run="")': {"all"},
    'BaseExperiment("e").allocate(specs, version="")': STEPS,
    'BaseExperiment("e").allocate(specs, engine="")': ENGINES,
    'scythe.open_run("e").resume(engine="")': ENGINES,
    'if scythe.open_run("e").status == ""': {"finished", "running", "incomplete"},
    'ExperimentRegistry.Register(local_file_location="")': {"cache", "copied-to-tempdir"},
}
_HEAD = "import scythe\nfrom scythe import BaseExperiment, ExperimentRegistry\nspecs = []\n"


@pytest.mark.parametrize("line", OFFERED)
def test_an_editor_offers_the_words_that_an_argument_takes(line: str, editor: Editor) -> None:
    assert editor.offered(line) >= OFFERED[line]


class Editor:
    """A client of Pyright's language server, with one script open."""

    def __init__(self, folder: Path) -> None:
        server = str(Path(sys.executable).with_name("pyright-langserver"))
        self._server = subprocess.Popen(
            [server, "--stdio"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._uri, self._asked = f"{folder.as_uri()}/script.py", 0
        self._lines = [*_HEAD.splitlines(), *OFFERED]

    def __enter__(self) -> Self:
        self._ask(
            "initialize",
            {"processId": os.getpid(), "rootUri": None, "capabilities": {"workspace": {"configuration": True}}},
        )
        self._send({"method": "initialized", "params": {}})
        document = {"uri": self._uri, "languageId": "python", "version": 1, "text": "\n".join(self._lines)}
        self._send({"method": "textDocument/didOpen", "params": {"textDocument": document}})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.kill()
        self._server.communicate()

    def offered(self, line: str) -> set[str]:
        """The texts that are offered between the empty quotes of a line."""
        place = {"line": self._lines.index(line), "character": line.rindex('""') + 1}
        answer = self._ask("textDocument/completion", {"textDocument": {"uri": self._uri}, "position": place})
        return {item["label"].strip('"') for item in (answer or {"items": []})["items"]}

    def _ask(self, method: str, params: object) -> Any:
        self._asked += 1
        self._send({"id": self._asked, "method": method, "params": params})
        while True:
            told = self._told()
            if "method" not in told and told.get("id") == self._asked:
                return told["result"]
            if "method" in told and "id" in told:  # the server asks for settings, of which it gets one
                wanted = told["params"].get("items", []) if told["params"] else []
                settings = [{"pythonPath": sys.executable} if w.get("section") == "python" else {} for w in wanted]
                self._send({"id": told["id"], "result": settings})

    def _send(self, message: Mapping[str, object]) -> None:
        assert self._server.stdin is not None
        raw = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self._server.stdin.write(b"Content-Length: %d\r\n\r\n%b" % (len(raw), raw))
        self._server.stdin.flush()

    def _told(self) -> dict[str, Any]:
        assert self._server.stdout is not None
        length = 0
        while header := self._server.stdout.readline().strip():
            name, _, value = header.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        assert length, "the language server is gone"
        return json.loads(self._server.stdout.read(length))


@pytest.fixture(scope="module")
def editor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Editor]:
    with Editor(tmp_path_factory.mktemp("editor")) as opened:
        yield opened
