"""Stands for a simulator that is not yours: a program that reads files of its working folder, and writes others there.

room.py CASE.ini    writes CASE.csv, and its log to standard output. Exit codes: 0 done, 2 the case makes no sense.

It knows nothing of Scythe. It simulates a heated room of one thermal node, hour by hour; its thermostat is found by iteration,
which for some rooms never comes to an end, as real programs' iterations do.
"""

import configparser
import csv
import sys
from pathlib import Path

FACADE, SETPOINT, AIR = 12.0, 20.0, 1200.0  # m2, deg.C, J/m3K


def fail(message: str) -> None:
    print(f"** FATAL ** {message}", flush=True)
    sys.exit(2)


def main() -> None:
    case = Path(sys.argv[1])
    parser = configparser.ConfigParser()
    parser.read(case)
    room = {name: float(value) for name, value in parser["room"].items()}
    print(f"room.py 3.1, case {case.stem}: {room}", flush=True)
    if room["window_area"] > FACADE:
        fail(f"windows of {room['window_area']:g} m2 in a facade of {FACADE:g} m2")
    outdoors = [float(line) for line in Path("weather.txt").read_text().split()]
    loss = room["u_value"] * (FACADE - room["window_area"]) + 1.1 * room["window_area"]  # W/K
    capacity = room["heat_capacity"] * 1000  # J/K
    indoors, rows = SETPOINT, []
    for hour, outdoor in enumerate(outdoors):
        power, steps = 0.0, 0
        while True:  # the thermostat: correct the power until the room is neither too cold nor heated for nothing
            after = indoors + 3600 / capacity * (power - loss * (indoors - outdoor))
            power_needed = min(max(power + room["gain"] * (SETPOINT - after), 0.0), room["heater"])
            if abs(power_needed - power) < 0.01:
                break
            power, steps = power_needed, steps + 1
        indoors = after
        rows.append((hour, outdoor, round(indoors, 4), round(power, 2)))
        if hour % 24 == 23:
            print(f"day {hour // 24 + 1}: {steps} steps of the thermostat in the last hour", flush=True)
    with case.with_suffix(".csv").open("w", newline="") as file:
        csv.writer(file).writerows([("hour", "outdoors", "indoors", "power"), *rows])
    print("done", flush=True)


main()
