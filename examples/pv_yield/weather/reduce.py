"""Makes the weather files of this folder from those that pvlib 0.11.2 ships (see README.md).

    python reduce.py FOLDER    # pvlib/data, unpacked from pvlib-0.11.2-py3-none-any.whl

All of them come out in NREL's TMY3 layout, cut to the columns that the simulation reads.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
from pvlib import iotools

HERE = Path(__file__).parent
COLUMNS = {
    "ghi": "GHI (W/m^2)",
    "dni": "DNI (W/m^2)",
    "dhi": "DHI (W/m^2)",
    "temp_air": "Dry-bulb (C)",
    "wind_speed": "Wspd (m/s)",
}
#: Minutes after the full hour at which the satellite saw this cell, found from (GHI - DHI) / DNI = cos(zenith).
PVGIS_OFFSET = 11


def tmy3(source: Path, target: str) -> None:
    """A TMY3 file: the columns as they stand, text for text."""
    header, *lines = source.read_text().splitlines()
    names = lines[0].split(",")
    keep = [names.index(name) for name in ("Date (MM/DD/YYYY)", "Time (HH:MM)", *COLUMNS.values())]
    rows = [",".join(line.split(",")[i] for i in keep) for line in lines]
    (HERE / target).write_text("\n".join([header, *rows, ""]))


def tmy2(source: Path, target: str, name: str) -> None:
    """A TMY2 file: tenths become units; pvlib's stamps begin an hour, those of TMY3 end it."""
    data, meta = iotools.read_tmy2(str(source))
    data = data.rename(columns={"GHI": "ghi", "DNI": "dni", "DHI": "dhi", "DryBulb": "temp_air", "Wspd": "wind_speed"})
    data[["temp_air", "wind_speed"]] /= 10
    header = f'{meta["WBAN"]},"{name}",{meta["State"]},{meta["TZ"]:.1f}'
    header += f",{meta['latitude']:.3f},{meta['longitude']:.3f},{meta['altitude']:.0f}"
    write(target, header, data.astype({"ghi": int, "dni": int, "dhi": int}), minute=0)


def pvgis(source: Path, target: str, name: str, timezone: int) -> None:
    """A PVGIS file: UTC becomes local standard time, the instant of the satellite image the middle of its hour."""
    data, meta = iotools.read_pvgis_tmy(source, map_variables=True)[:2]
    place = meta["inputs"]
    data[["ghi", "dni", "dhi"]] = data[["ghi", "dni", "dhi"]].abs()  # -0.0 at night
    # 00:00 UTC + offset is the middle of an hour that ends 30 minutes later, at 01:41 in UTC+1
    data.index = data.index.tz_localize(None) + pd.Timedelta(hours=timezone - 1)
    header = f'000000,"{name}",IT,{timezone:.1f},{place["latitude"]:.3f},{place["longitude"]:.3f}'
    write(target, f"{header},{place['elevation']:.0f}", data, minute=PVGIS_OFFSET + 30)


def write(target: str, header: str, data: pd.DataFrame, minute: int) -> None:
    """Rows stamped with the end of their hour, 01:mm to 24:mm."""
    index = pd.DatetimeIndex(data.index)
    columns = {
        "Date (MM/DD/YYYY)": index.strftime("%m/%d/%Y"),
        "Time (HH:MM)": [f"{hour + 1:02d}:{minute:02d}" for hour in index.hour],
        **{label: data[name].to_numpy() for name, label in COLUMNS.items()},
    }
    (HERE / target).write_text(f"{header}\n{pd.DataFrame(columns).to_csv(index=False, lineterminator=chr(10))}")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    tmy3(folder / "703165TY.csv", "sand_point.csv")
    pvgis(folder / "tmy_45.000_8.000_2005_2023.csv", "piedmont.csv", "PIEDMONT", timezone=1)
    tmy3(folder / "723170TYA.CSV", "greensboro.csv")
    tmy2(folder / "12839.tm2", "miami.csv", "MIAMI")
