"""How many cores this process may use, and how many threads each of several workers may start on them; which control groups it is in.

Reads the affinity, the CPU quotas of control groups (v1 and v2, nested ones too), and `PYTHON_CPU_COUNT`. Sets nothing.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

#: Who has set one of these has thought about the threads of numerical libraries: they are left alone then.
_NUMERICAL = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
#: The other pools of threads, each with a setting of its own. Arrow counts its cores by OMP_NUM_THREADS.
_OTHERS = ("POLARS_MAX_THREADS", "RAYON_NUM_THREADS", "ARROW_IO_THREADS")


def cpus() -> int:
    """Cores that this process may use: what its user, its affinity and its control groups leave."""
    if sys.version_info >= (3, 13) and _counted_by_hand():
        return os.process_cpu_count() or 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, quota())))


def _counted_by_hand() -> bool:
    """Whether the user has told Python (3.13 and later) how many cores there are."""
    told = sys._xoptions.get("cpu_count")  # pyright: ignore[reportPrivateUsage] - the documented name
    if told is None and not sys.flags.ignore_environment:
        told = os.environ.get("PYTHON_CPU_COUNT")
    return str(told or "default") != "default"


def thread_limits(workers: int, environment: Mapping[str, str]) -> dict[str, str]:
    """What to set in a worker's environment so that `workers` of them start no more threads than there are cores.

    A variable that the user has set stays; of the numerical libraries' one is enough, for some read several.
    """
    each = str(max(1, cpus() // max(1, workers)))
    names = [name for name in _OTHERS if name not in environment]
    if not any(name in environment for name in _NUMERICAL):
        names += _NUMERICAL
    return dict.fromkeys(names, each)


def quota(root: Path = Path("/")) -> float:
    """The cores' worth of time that the control groups of this process may use; infinite without a quota."""
    found = (_quota_v2(folder) if is_v2 else _quota_v1(folder) for folder, is_v2 in control_groups("cpu", root))
    return min(found, default=math.inf)


def control_groups(controller: str, root: Path = Path("/")) -> Iterator[tuple[Path, bool]]:
    """The folders of the control groups of this process that a controller serves, and of those that they lie in; and whether each is of v2."""
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
        mounts = (root / "proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return
    for line in mounts:
        fields, _, tail = line.partition(" - ")
        shown, point = (_unescaped(text) for text in fields.split(" ")[3:5])
        kind, _, options = [*tail.split(" ", 2), "", ""][:3]
        is_v2 = kind == "cgroup2"
        if not is_v2 and not (kind == "cgroup" and controller in options.split(",")):
            continue
        for group in groups:
            _, controllers, path = group.split(":", 2)
            if (controllers == "") if is_v2 else (controller in controllers.split(",")):
                yield from ((folder, is_v2) for folder in _nested(root / point.lstrip("/"), shown, path))


def _nested(point: Path, shown: str, path: str) -> Iterator[Path]:
    """The folders of a group and of those that it lies in, below a mount that shows the hierarchy from `shown` on."""
    try:
        below = PurePosixPath(path).relative_to(shown)
    except ValueError:  # a container's view: the mount shows its own group alone
        below = PurePosixPath()
    for parent in (below, *below.parents):
        if parent.parts and ".." not in parent.parts:
            yield point / parent
    yield point


def _quota_v2(folder: Path) -> float:
    limit, period = [*_read(folder / "cpu.max").split(), "max", "100000"][:2]
    return _share(limit, period)


def _quota_v1(folder: Path) -> float:
    return _share(_read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip())


def _share(limit: str, period: str) -> float:
    try:
        share = int(limit) / int(period)
    except (ValueError, ZeroDivisionError):  # "max": no limit
        return math.inf
    return share if share > 0 else math.inf  # -1: no limit


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def _unescaped(text: str) -> str:
    """A path of mountinfo, where blanks are octal escapes."""
    return text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
