"""Draws plates, runs them on Slurm (or on the machine at hand), and shows the hottest."""

import argparse

from plate import Plate, cool

import scythe
from scythe import BaseExperiment, SlurmOptions

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="slurm", choices=["slurm", "local"])
    parser.add_argument("--plates", type=int, default=500)
    parser.add_argument(
        "--elements", type=int, help="elements of the job array; as many as there is work, if not given"
    )
    parser.add_argument("--partition", help="as sbatch has it")
    asked = parser.parse_args()

    plates = scythe.sample(Plate, asked.plates, seed=1, cells=41, power=(100, 1000))
    engine = "local" if asked.engine == "local" else SlurmOptions(time="01:00:00", partition=asked.partition)
    run, ref = BaseExperiment(cool).allocate(plates, version="auto", engine=engine, workers=asked.elements)
    print(f"{run.experiment_id}: wait for it here, or later with: scythe watch {run.experiment_id}")
    print(ref.result())
    print(scythe.read(cool, ids=False).sort("hottest", descending=True).head(5))
