#!/usr/bin/env bash
# What durability costs: ingest, recovery, archived windows. Prints seconds. Needs a release build; takes some minutes.
#   benches/durable.sh [DIRECTORY]      the directory (default: target/durable) says which disk is measured
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
windrow="${WINDROW_PROGRAM:-${CARGO_TARGET_DIR:-target}/release/windrow}"
at="${1:-target/durable}"
rm -rf "$at" && mkdir -p "$at"
TIMEFORMAT='%R s'

bid="CREATE STREAM bid (WATERMARK FOR date_time AS date_time - INTERVAL '1 second') WITH (connector = 'nexmark', events = 10869565);"
stream="CREATE STREAM s (id BIGINT, k BIGINT, at TIMESTAMP, WATERMARK FOR at AS at - INTERVAL '1 second') "
rows="INSERT INTO s SELECT value, value % 1000, to_timestamp(1767225600 + value / 1000) FROM generate_series(1, 5000000) AS t(value);"

for durability in memory os fsync; do
    echo "== 5 M rows in one INSERT, durability = '$durability'"
    time "$windrow" "$at/ingest_$durability" -q -c "$stream WITH (durability = '$durability'); $rows" >/dev/null
done
echo "== the same rows again after a restart: count(*)"
time "$windrow" "$at/ingest_fsync" -q -c "SELECT count(*) FROM s"

echo "== 2,000 INSERTs of one row, fsync each"
{
    echo "$stream;"
    for id in $(seq 2000); do echo "INSERT INTO s VALUES ($id, $id, to_timestamp(1767225600 + $id));"; done
} >"$at/single.sql"
time "$windrow" "$at/single" -q -f "$at/single.sql" >/dev/null

view="SELECT window_start, window_end, auction, count(*) AS n, sum(price) AS total FROM TUMBLE(bid, date_time, INTERVAL '10 seconds') GROUP BY window_start, window_end, auction"
echo "== a view over 10 M bids, in memory"
time "$windrow" -q -c "$bid CREATE MATERIALIZED VIEW v AS $view; WAIT FOR v; SELECT count(*) FROM v"
echo "== the same, archived"
time "$windrow" "$at/view" -q -c "$bid CREATE MATERIALIZED VIEW v AS $view; WAIT FOR v; SELECT count(*) FROM v"
echo "== a scan of the archive"
time "$windrow" "$at/view" -q -c "SELECT count(*), sum(n), sum(total) FROM v"
du -sh "$at/view/views/v" "$at/ingest_fsync"

slow="SELECT window_start, window_end, k, count(*) AS n FROM TUMBLE(s, at, INTERVAL '1 minute') GROUP BY window_start, window_end, k"
echo "== a view made over 5 M rows of history, and then a restart that goes on from its checkpoint"
time "$windrow" "$at/ingest_fsync" -q -c "CREATE MATERIALIZED VIEW w AS $slow; WAIT FOR w; SELECT count(*) FROM w"
time "$windrow" "$at/ingest_fsync" -q -c "WAIT FOR w; SELECT count(*) FROM w"
