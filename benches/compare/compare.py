#!/usr/bin/env python3
"""Runs the queries of queries.py on Windrow, DataFusion, DuckDB and Polars, over the same Parquet files, and prints times
and ratios. Every engine has the same threads, makes its whole result in memory (as Arrow batches or its own columns),
plans anew at every run, and each form is run in a process of its own: once to warm up, then `--runs` times, of which the median
counts. Where there is more than one good form of a query, the fastest one of an engine counts. Results must agree in
the number of rows and in a sum over every column, or the comparison fails.
"""
import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import queries

ROOT = Path(__file__).resolve().parents[2]
BUILT = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
ENGINES = ["windrow", "windrow bounded", "datafusion", "duckdb", "polars"]
TABLES = ["bid", "person", "auction"]


def files(data):
    return {t: str(Path(data) / f"{t}.parquet") for t in TABLES}


# --- one engine, one query, in a process of its own -------------------------------------------------------------------

def column_sums(table):
    """One number per column that does not depend on the order of rows; the same as `whole_queries` makes."""
    import pyarrow as pa
    import pyarrow.compute as pc

    sums = []
    for column in table.columns:
        kind = column.type
        if pa.types.is_timestamp(kind):
            per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[kind.unit]
            seconds = pc.divide(column.cast(pa.int64()), per_second)
            sums.append(pc.sum(pc.subtract(seconds, pc.multiply(pc.divide(seconds, 100_000), 100_000))).as_py())
        elif pa.types.is_floating(kind):
            sums.append(round(pc.sum(column).as_py() or 0.0, 1))
        elif pa.types.is_integer(kind):
            sums.append(pc.sum(column).as_py() or 0)
        else:
            sums.append(pc.sum(pc.binary_length(column.cast(pa.string()))).as_py() or 0)
    return sums


def forms(engine, name, paths, threads):
    """Functions that run the query once and return what makes an Arrow table of its result."""
    if engine == "duckdb":
        import duckdb

        con = duckdb.connect(config={"threads": threads})
        con.execute("CREATE MACRO to_ts(s) AS make_timestamp(s * 1000000)")
        for t in TABLES:
            con.execute(f"CREATE VIEW {t} AS SELECT * FROM read_parquet('{paths[t]}')")

        def arrow(sql):
            result = con.execute(sql)
            return result.to_arrow_table() if hasattr(result, "to_arrow_table") else result.fetch_arrow_table()

        return [lambda q=q: arrow(q) for q in queries.duckdb_sql(name)], lambda table: table
    if engine == "datafusion":
        import pyarrow as pa
        import pyarrow.parquet as pq
        from datafusion import SessionConfig, SessionContext

        ctx = SessionContext(SessionConfig().with_target_partitions(threads))
        unit = None
        for t in TABLES:
            ctx.register_parquet(t, paths[t])
            unit = pq.read_schema(paths[t]).field("date_time").type.unit
        per_second = {"ms": 10**3, "us": 10**6, "ns": 10**9}[unit]

        def collect(sql):
            df = ctx.sql(sql)
            return df.schema(), df.collect()

        sqls = [q.replace("{unit}", str(per_second)) for q in queries.datafusion_sql(name)]
        return [lambda q=q: collect(q) for q in sqls], lambda r: pa.Table.from_batches(r[1], schema=r[0])
    if engine == "polars":
        import polars as pl

        def scan(table):
            return pl.scan_parquet(paths[table])

        runs = []
        for plan in queries.polars_plans(name, scan):
            runs.append(lambda plan=plan: plan.collect())
            runs.append(lambda plan=plan: plan.collect(engine="streaming"))
        return runs, lambda df: df.to_arrow()
    raise KeyError(engine)


def worker(engine, name, number, data, threads, runs):
    """Prints one JSON line: seconds of each run, rows, sums, peak memory; nothing when there is no such form."""
    functions, to_table = forms(engine, name, files(data), threads)
    if number >= len(functions):
        return
    seconds, result = [], None
    try:
        for _ in range(runs + 1):
            result = None  # the last result is not part of the peak of the next
            began = time.perf_counter()
            result = functions[number]()
            seconds.append(time.perf_counter() - began)
            if seconds[0] > 60:  # hopeless: the first run has to do
                seconds.append(seconds[0])
                break
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        table = to_table(result)
        done = {"seconds": seconds[1:], "rows": table.num_rows, "sums": column_sums(table), "peak_mb": round(peak)}
    except Exception as error:  # a form that an engine cannot run is reported, not hidden
        done = {"error": str(error)[:300]}
    print(json.dumps({"form": number} | done), flush=True)


def windrow(args, name, bounded):
    tail = "" if bounded else "\n" + queries.WINDROW_EMIT.get(name, "EMIT FINAL")
    command = [args.windrow, "--threads", str(args.threads), "--runs", str(args.runs),
               "--setup", queries.WINDROW_SETUP.format(**files(args.data)), "--query", queries.WINDROW[name] + tail]
    return lines(subprocess.run(command, capture_output=True, text=True, cwd=ROOT))


def lines(done):
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if not found or done.returncode:
        found.append({"form": 0, "error": (done.stderr.strip() or f"exit status {done.returncode}")[-300:]})
    return found


# --- all of it --------------------------------------------------------------------------------------------------------

def measure(args, engine, name):
    """The fastest form of the engine; what all forms gave."""
    if engine.startswith("windrow"):
        found = windrow(args, name, "bounded" in engine)
    else:
        found = []
        while True:
            command = [sys.executable, __file__, "--data", args.data, "--threads", str(args.threads),
                       "--runs", str(args.runs), "--worker", engine, name, str(len(found))]
            env = os.environ | {"POLARS_MAX_THREADS": str(args.threads)}
            done = subprocess.run(command, capture_output=True, text=True, env=env)
            if done.returncode == 0 and not done.stdout:
                break
            found += lines(done)
    for form in found:
        if "error" in form:
            print(f"  {engine:<16} {name:<5} form {form['form']}: {form['error']}", file=sys.stderr)
    good = [f | {"median": statistics.median(f["seconds"])} for f in found if "seconds" in f]
    for form in good:
        print(f"  {engine:<16} {name:<5} form {form['form']}: {form['median']:7.3f} s  {form['rows']:>10} rows  {form['peak_mb']:>6} MB", file=sys.stderr)
    return good


def same(a, b):
    return a["rows"] == b["rows"] and len(a["sums"]) == len(b["sums"]) and all(
        abs(x - y) <= (1e-6 * abs(x) + 0.2 if isinstance(x, float) else 0) for x, y in zip(a["sums"], b["sums"]))


def write_data(args):
    """Windrow writes the events once, by COPY from its own generator."""
    paths = files(args.data)
    if all(Path(p).exists() for p in paths.values()):
        return
    Path(args.data).mkdir(parents=True, exist_ok=True)
    bids = args.bids * 50 // 46 + 50  # of 50 events 46 are bids; four of them make person and auction
    text = queries.WINDROW_WRITE.format(**paths, events_bid=bids, events_person=bids, events_auction=bids)
    print(f"writing {args.bids} bids to {args.data}", file=sys.stderr)
    # One thread: with more, COPY mixes the generator's pieces, and rows would be out of order by minutes.
    subprocess.run([args.windrow, "--threads", "1", "--runs", "0", "--setup", text, "--query", "SELECT 1"], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def report(args, results, events):
    print(f"\nseconds, warm median of {args.runs}, {args.threads} threads; peak memory of the process in MB\n")
    print("| query | " + " | ".join(args.engines) + " | M rows/s of Windrow | ahead of the best other |")
    print("|---|" + "---|" * (len(args.engines) + 2))
    for name in args.queries:
        cells = []
        for engine in args.engines:
            best = results.get((engine, name))
            cells.append(f"{best['median']:.3f} ({best['peak_mb']})" if best else "–")
        ours = results.get(("windrow", name))
        others = [results[e, name]["median"] for e in args.engines if not e.startswith("windrow") and (e, name) in results]
        rate = f"{events[name] / ours['median'] / 1e6:.1f}" if ours else "–"
        ratio = f"{min(others) / ours['median']:.2f}×" if ours and others else "–"
        print(f"| {name} {queries.QUERIES[name]} | " + " | ".join(cells) + f" | {rate} | {ratio} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=str(ROOT / "target/compare/data"), help="where bid.parquet, person.parquet and auction.parquet are, or come")
    parser.add_argument("--bids", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--engines", nargs="*", default=ENGINES, choices=ENGINES)
    parser.add_argument("--queries", nargs="*", default=list(queries.QUERIES), choices=list(queries.QUERIES))
    parser.add_argument("--windrow", default=str(BUILT / "release/whole_queries"), help="the bench program")
    parser.add_argument("--worker", nargs=3, metavar=("ENGINE", "QUERY", "FORM"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.data = str(Path(args.data).resolve())
    if args.worker:
        engine, name, form = args.worker
        worker(engine, name, int(form), args.data, args.threads, args.runs)
        return
    write_data(args)
    import pyarrow.parquet as pq

    counts = {t: pq.ParquetFile(p).metadata.num_rows for t, p in files(args.data).items()}
    print(" ".join(f"{t}: {n}" for t, n in counts.items()), file=sys.stderr)
    results, differ = {}, []
    for name in args.queries:
        truth = None
        for engine in reversed(args.engines):  # the others first: they are the truth
            good = measure(args, engine, name)
            for form in good:
                if form.get("late") or form.get("bad"):
                    differ.append(f"{name}: {engine} has {form['late']} late and {form['bad']} bad rows; the data should have none")
                if truth is None:
                    truth = (engine, form)
                elif not same(truth[1], form):
                    differ.append(f"{name}: {engine} form {form['form']} has {form['rows']} rows, sums {form['sums']}; "
                                  f"{truth[0]} has {truth[1]['rows']}, {truth[1]['sums']}")
            if good:
                results[engine, name] = min(good, key=lambda f: f["median"])
    events = {name: sum(counts[t] for t in queries.READS.get(name, ["bid"])) for name in args.queries}
    report(args, results, events)
    print("\nall results agree" if not differ else "\nRESULTS DIFFER\n" + "\n".join(differ))
    sys.exit(1 if differ else 0)


main()
