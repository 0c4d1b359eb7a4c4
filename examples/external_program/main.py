"""Runs the simulator over rooms, and shows what came out and what went wrong.

python examples/external_program/main.py [--n 40] [--engine local]
"""

from __future__ import annotations

import argparse
from math import cos, pi
from pathlib import Path

import numpy as np
import polars as pl
import polars.selectors as cs
from room import room

import scythe
from scythe import BaseExperiment


def sample(n: int, weather: Path) -> pl.DataFrame:
    """Rooms of all kinds, the same ones every time; the windows of a few are larger than their facade."""
    rng = np.random.default_rng(0)
    gain = np.full(n, 40.0)
    gain[n // 2] = 5000.0  # a thermostat that never settles
    return pl.DataFrame(
        {
            "window_area": rng.uniform(1, 13, n).round(1),
            "u_value": rng.uniform(0.2, 2, n).round(2),
            "heat_capacity": rng.uniform(200, 4000, n).round(),
            "heater": rng.uniform(100, 600, n).round(),
            "gain": gain,
            "weather_file": [str(weather)] * n,
        }
    )


def main() -> None:
    """Allocates, waits, reads and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=40, help="number of rooms")
    parser.add_argument("--engine", default=None, help="inline, local (the default) or hatchet")
    args = parser.parse_args()

    weather = Path("weather.txt")  # three days of winter
    weather.write_text("\n".join(f"{-2 - 5 * cos((hour - 3) / 24 * 2 * pi):.2f}" for hour in range(72)))
    run, ref = BaseExperiment(room).allocate(sample(args.n, weather), version="auto", engine=args.engine)
    result = ref.result()

    print(f"\n{result.rows} rooms in {result.seconds:.1f} s, {result.errors} failed, in {run.uri}")
    shown = scythe.read(room, run=run).select("window_area", "u_value", "heater", "heating", "coldest")
    with pl.Config(tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True):
        print(shown.head(5).with_columns(cs.float().round(2)))
    print("\nThe files that it wrote for the first:")
    print("\n".join(f"  {uri}" for uri in scythe.files(room, run=run).select("hourly", "log").row(0)))
    print("\nAn error of each kind:")
    errors = scythe.read(room, run=run, table="errors")
    for message in errors.unique("exception_type", maintain_order=True)["exception_message"]:
        print(message)


if __name__ == "__main__":
    main()
