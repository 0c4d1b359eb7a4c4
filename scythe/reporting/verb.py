"""`scythe.report` and its command: runs in, one HTML file out. Changes no run."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

from scythe.errors import ReportError
from scythe.remote.forks import check_fork
from scythe.runs.open import open_run
from scythe.runs.run import ExperimentRun
from scythe_catalog.whole_files import whole

MOST_RUNS = 2


def report(*runs: Any, to: str | Path | None = None, open: bool = False) -> Path:
    """Makes a report of a run, or of two side by side: one HTML file, to be looked at, sent and printed.

    It holds the run in five numbers, histograms of inputs and outputs, each output against each input (Spearman's rank
    correlation), where failures lie, times and workers, dataframes as bands, images, and provenance. It fetches nothing, and
    does not grow with the rows of the run. A run that is not finished is shown as far as it is. Needs
    Matplotlib: `pip install matplotlib`.

    Args:
        runs: One run or two. A name (`experiment` for its latest run, `experiment/version` or
            `experiment/version/datetime`), a registered function, or the run that `allocate` and `open_run` give.
        to: The file to write; by default one in the working folder that has the name of the run. It is replaced.
        open: Whether a browser opens it.

    Returns:
        The path of the file.

    Raises:
        ReportError: the extra is not installed, there are no runs or more than two, or the file cannot be written.
        NotFoundError: there is no such run; the message lists what is there.
        VersionError: a version is none.
        SettingsError: a setting makes no sense.
        StorageError: the root cannot be reached.

    Examples:
        >>> import scythe
        >>> scythe.report("simulate_energy", to="energy.html").stat().st_size < 1_000_000
        True
    """
    if not 1 <= len(runs) <= MOST_RUNS:
        raise ReportError(
            f"a report is of one run, or of {MOST_RUNS} side by side, not of {len(runs)}: name one or two"
        )
    from scythe.reporting.figures import check_extra

    check_extra()
    check_fork()
    import scythe
    from scythe.reporting.collect import beside, facts_of
    from scythe.reporting.page import page

    opened = [run if isinstance(run, ExperimentRun) else open_run(run) for run in runs]
    target = Path(to) if to is not None else Path("-and-".join(_file_name(run) for run in opened) + ".html")
    facts = [facts_of(run) for run in opened]
    if len(facts) > 1:
        facts = [beside(facts[0], facts[1]), beside(facts[1], facts[0])]
    text = page(facts, dt.datetime.now(dt.UTC), f"Scythe {scythe.__version__}")
    try:
        with whole(target) as part:
            part.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ReportError(
            f"the report cannot be written to {target}: {error.strerror or error}; name another file"
        ) from error
    if open:
        import webbrowser

        webbrowser.open(target.resolve().as_uri())
    return target


def _file_name(run: ExperimentRun) -> str:
    return run.experiment_id.replace("/", "-")
