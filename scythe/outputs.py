"""Output files: taken from where a function left them, published under the run's `results/`.

A file waits in the staging folder until its input's outputs are known to be good; then it appears
under its final name, whole. Never reads a file's content.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from pydantic import AnyUrl
from pydantic.networks import _BaseUrl  # pyright: ignore[reportPrivateUsage]

from scythe.base import ExperimentOutputSpec
from scythe.errors import OutputError
from scythe.fetch import cache_folder
from scythe.plan import RunPlan


class OutputFiles:
    """The output files of one range of inputs."""

    def __init__(self, plan: RunPlan, names: tuple[str, ...]) -> None:
        self.names = names
        self._plan, self._objects = plan, plan.objects
        self._staged: dict[int, dict[str, Path]] = {}

    def take(self, i: int, output: ExperimentOutputSpec, run_id: str, tempdir: Path | None) -> ExperimentOutputSpec:
        """The output with URIs in place of paths; its files are moved out of the function's reach.

        Raises:
            OutputError: a path that names no file.
        """
        self._drop(i)
        uris: dict[str, str] = {}
        staged = self._staged[i] = {}
        for name, path in self._paths(output).items():
            key = self._plan.key.output_file(name, run_id + _suffix(path))
            waiting = self._objects.staging_file(path.name)
            if self._ours_to_move(path, tempdir):
                shutil.move(path, waiting)
            else:
                shutil.copyfile(path, waiting)
            staged[key], uris[name] = waiting, self._objects.uri(key)
        return output.model_copy(update=uris) if uris else output

    def flush(self, keep: Collection[int]) -> None:
        """Publishes the files of these inputs, many at a time, and drops the others."""
        wanted = [(path, key) for i in keep for key, path in self._staged.get(i, {}).items()]
        for i in set(self._staged) - set(keep):
            self._drop(i)
        self._objects.publish_all(wanted)
        self._staged.clear()

    def forget(self, start: int) -> None:
        """Drops the files of the inputs from this one on."""
        for i in [i for i in self._staged if i >= start]:
            self._drop(i)

    def _paths(self, output: ExperimentOutputSpec) -> dict[str, Path]:
        """The local files among the outputs, by field."""
        paths: dict[str, Path] = {}
        for name in self.names:
            value = getattr(output, name)
            if value is None or isinstance(value, AnyUrl | _BaseUrl):
                continue
            paths[name] = path = Path(value)
            if not path.is_file():
                what = "is a folder: pack it into one file" if path.is_dir() else "does not exist"
                raise OutputError(f"the output file {name}={str(path)!r} {what}")
        return paths

    def _drop(self, i: int) -> None:
        for path in self._staged.pop(i, {}).values():
            path.unlink(missing_ok=True)

    def _ours_to_move(self, path: Path, tempdir: Path | None) -> bool:
        """Files of the run itself and of the shared cache are copied: others still need them."""
        resolved = path.resolve()
        if tempdir is not None and resolved.is_relative_to(tempdir.resolve()):
            return True
        keep = [cache_folder(), *([self._objects.folder] if self._objects.folder else [])]
        return not any(resolved.is_relative_to(folder.resolve()) for folder in keep)


def _suffix(path: Path) -> str:
    suffixes = path.suffixes[-2:]
    return "".join(suffixes) if suffixes[:1] == [".tar"] else path.suffix
