"""Simulates rooftop PV systems of any tilt, azimuth and DC/AC ratio at four sites, reads the table back and plots it.

python examples/pv_yield/main.py [--n 500] [--engine local] [--plot pv_yield.png]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import polars as pl
import polars.selectors as cs
from plot import plot
from pv_yield import pv_yield

import scythe
from scythe.allocate import BaseExperiment

WEATHER = Path(__file__).resolve().parent / "weather"
SITES = {
    "Sand Point": WEATHER / "sand_point.csv",
    "Piedmont": WEATHER / "piedmont.csv",
    "Greensboro": WEATHER / "greensboro.csv",
    "Miami": WEATHER / "miami.csv",
}
SHOWN = ["site", "tilt", "azimuth", "dc_ac_ratio", "specific_yield", "peak_ac_power"]


def sample(n: int) -> pl.DataFrame:
    """Systems spread over the design space, the sites in turn; the same ones every time."""
    rng = np.random.default_rng(0)
    sites = [list(SITES)[i % len(SITES)] for i in range(n)]
    return pl.DataFrame(
        {
            "site": sites,
            "tilt": rng.uniform(0, 60, n).round(1),
            "azimuth": rng.uniform(0, 360, n).round(1) % 360,
            "dc_ac_ratio": rng.uniform(1, 2, n).round(2),
            "weather_file": [str(SITES[site]) for site in sites],
        }
    )


def main() -> None:
    """Allocates, waits, reads, prints and plots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=500, help="number of simulations")
    parser.add_argument("--engine", default=None, help="inline, local (the default) or hatchet")
    parser.add_argument("--plot", type=Path, default=Path("pv_yield.png"), help="where to save the plot")
    args = parser.parse_args()

    run, ref = BaseExperiment(pv_yield).allocate(sample(args.n), version="auto", engine=args.engine)
    result = ref.result()

    yields = scythe.read(pv_yield, run=run)
    monthly = scythe.read(pv_yield, run=run, table="monthly")
    print(f"\n{result.rows:,} simulations in {result.seconds:.1f} s, {result.errors:,} errors. The results lie in\n")
    print(f"  {run.uri}")
    for name, table in result.tables.items():
        print(f"    {f'final/{name}.pq':<28} {table.rows:>7,} rows   table={name!r}")
    print(f'\nscythe.read("{run.experiment}", "{run.version}")\n')
    with pl.Config(tbl_rows=8, tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True):
        print(yields.head(8).select(SHOWN).with_columns(cs.float().round(3)))
    print(f"\nplot: {plot(yields, monthly, args.plot)}")


if __name__ == "__main__":
    main()
