import polars as pl
from simulation import simulate_energy

from scythe import BaseExperiment

specs = pl.DataFrame({"r_value": [2.0]})
BaseExperiment(simulate_energy).allocate(specs, version=("bumpminor",))  # refused
