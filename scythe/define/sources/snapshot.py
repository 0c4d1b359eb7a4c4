"""The modules of a user's project as their files were at one time, to be loaded so later, whatever has become of the files."""

from __future__ import annotations

import io
import linecache
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import decode_source, spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType


@dataclass(frozen=True)
class Source:
    """A module of the project, as its file was."""

    name: str
    file: str
    is_package: bool
    text: str

    @property
    def is_edited(self) -> bool:
        """Whether the file is another by now, or gone."""
        try:
            return read_source(Path(self.file)) != self.text
        except (OSError, UnicodeDecodeError, SyntaxError):
            return True


def read_source(file: Path) -> str:
    """The text of a file of Python, as Python reads it: by the encoding that it declares, without a byte order mark.

    Raises OSError; UnicodeDecodeError or SyntaxError where it is not in the encoding that it declares, or that is unknown.
    """
    return decode_source(file.read_bytes())


def load_as_they_were(sources: Iterable[Source]) -> None:
    """Has this process load these modules, when it comes to that, as they were; what it has loaded stays."""
    found = next((finder for finder in sys.meta_path if isinstance(finder, _Finder)), None)
    if found is None:
        sys.meta_path.insert(0, found := _Finder())
    found.sources.update({source.name: source for source in sources})


class _Finder(MetaPathFinder):
    """Finds the modules of the project; all others are left to Python.

    They are loaded from their texts also where the files are still the same: one may be edited just before Python reads it, and
    Python takes bytecode of an earlier file of the same second and size for that of this one. What another loader changes as it
    loads (types that are checked, say) is left to that one while the file is the same.
    """

    def __init__(self) -> None:
        self.sources: dict[str, Source] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        source = self.sources.get(fullname)
        if source is None:
            return None
        others = (finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec"))
        found = next(filter(None, (finder.find_spec(fullname, path, target) for finder in others)), None)
        if found is not None and type(found.loader) is not SourceFileLoader and not source.is_edited:
            return found
        inside = [str(Path(source.file).parent)] if source.is_package else None
        return spec_from_file_location(fullname, source.file, loader=_Loader(source), submodule_search_locations=inside)


class _Loader(SourceFileLoader):
    """Loads a module from the text that its file had; tracebacks show that, too."""

    def __init__(self, source: Source) -> None:
        super().__init__(source.name, source.file)
        self._text = source.text

    def get_code(self, fullname: str) -> CodeType:
        """The module's code, compiled anew: no file of bytecode is that of this text."""
        lines = io.StringIO(self._text).readlines()  # as Python parts them: at no form feed
        linecache.cache[self.path] = (len(self._text), None, lines, self.path)
        return compile(self._text, self.path, "exec", dont_inherit=True)

    def get_source(self, fullname: str) -> str:
        """The text."""
        return self._text


__all__ = ["Source", "load_as_they_were", "read_source"]
