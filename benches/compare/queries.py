"""The queries of the comparison, for each engine in the best form that we know for it.

Result columns are the same for every engine, in the same order; times are timestamps, counts and sums 64-bit integers.
`{bid}`, `{person}`, `{auction}` stand for the Parquet files.
"""

QUERIES = {
    "QA": "tumble 10 s per auction: count, sum, max",
    "QB": "hop 10 s / 2 s per auction: count",
    "QB60": "hop 60 s / 1 s per auction: count",
    "QC": "filter and projection",
    "q5": "hot items: hop 10 s / 2 s, most bids per window",
    "q7": "highest bid of each 10 s",
    "q8": "new sellers per 10 s",
    "q2": "selection of auctions",
    "q12": "bids per bidder and 10 s",
    "q15": "statistics of bids per day, with distinct bidders and auctions",
    "q17": "statistics of auctions per day",
    "q18": "last bid of each bidder on each auction per 10 s",
    "q19": "ten highest bids of each auction per 10 s",
}

# What each query reads, for rows per second.
READS = {"q8": ["person", "auction"]}


# ---------------------------------------------------------------------------------------------------------------------
# Windrow. The bounded form is the same text without EMIT.

WINDROW_SETUP = "".join(
    f"""
CREATE STREAM {t} (WATERMARK FOR date_time AS date_time - INTERVAL '1 second')
WITH ('connector' = 'file', 'path' = '{{{t}}}', 'format' = 'parquet');
"""
    for t in ("bid", "person", "auction")
)

WINDROW_WRITE = "".join(
    f"""
CREATE STREAM {t}_made (WATERMARK FOR date_time AS date_time - INTERVAL '1 second')
WITH ('connector' = 'nexmark', 'table' = '{t}', 'events' = '{{events_{t}}}', 'event_rate' = '20000', 'out_of_order' = '1 second');
COPY (SELECT {columns} FROM {t}_made) TO '{{{t}}}' STORED AS PARQUET;
"""
    for t, columns in (
        ("bid", "auction, bidder, price, date_time"),
        ("person", "id, name, date_time"),
        ("auction", "id, seller, date_time"),
    )
)

WINDROW = {
    "QA": """
SELECT window_start, auction, count(*) AS n, sum(price) AS total, max(price) AS highest
FROM TUMBLE(bid, date_time, INTERVAL '10 seconds') GROUP BY window_start, window_end, auction""",
    "QB": """
SELECT window_start, auction, count(*) AS n
FROM HOP(bid, date_time, INTERVAL '2 seconds', INTERVAL '10 seconds') GROUP BY window_start, window_end, auction""",
    "QB60": """
SELECT window_start, auction, count(*) AS n
FROM HOP(bid, date_time, INTERVAL '1 second', INTERVAL '60 seconds') GROUP BY window_start, window_end, auction""",
    "QC": """
SELECT auction, bidder, 0.908 * CAST(price AS DOUBLE) AS price, date_time FROM bid WHERE price > 100000""",
    "q5": """
SELECT a.starttime, a.auction, a.num
FROM (SELECT auction, count(*) AS num, window_start AS starttime, window_end AS endtime
      FROM HOP(bid, date_time, INTERVAL '2 seconds', INTERVAL '10 seconds') GROUP BY auction, window_start, window_end) AS a
JOIN (SELECT max(c.num) AS maxn, c.starttime, c.endtime
      FROM (SELECT count(*) AS num, window_start AS starttime, window_end AS endtime
            FROM HOP(bid, date_time, INTERVAL '2 seconds', INTERVAL '10 seconds') GROUP BY auction, window_start, window_end) AS c
      GROUP BY c.starttime, c.endtime) AS m
ON a.starttime = m.starttime AND a.endtime = m.endtime AND a.num >= m.maxn""",
    "q7": """
SELECT b.window_start, b.auction, b.bidder, b.price
FROM TUMBLE(bid, date_time, INTERVAL '10 seconds') AS b
JOIN (SELECT max(price) AS maxprice, window_start, window_end
      FROM TUMBLE(bid, date_time, INTERVAL '10 seconds') GROUP BY window_start, window_end) AS m
ON b.window_start = m.window_start AND b.window_end = m.window_end AND b.price = m.maxprice""",
    "q8": """
SELECT p.starttime, p.id, p.name
FROM (SELECT id, name, window_start AS starttime, window_end AS endtime
      FROM TUMBLE(person, date_time, INTERVAL '10 seconds') GROUP BY id, name, window_start, window_end) AS p
JOIN (SELECT seller, window_start AS starttime, window_end AS endtime
      FROM TUMBLE(auction, date_time, INTERVAL '10 seconds') GROUP BY seller, window_start, window_end) AS a
ON p.id = a.seller AND p.starttime = a.starttime AND p.endtime = a.endtime""",
    "q2": """
SELECT auction, price FROM bid WHERE auction % 123 = 0""",
    "q12": """
SELECT window_start, bidder, count(*) AS n
FROM TUMBLE(bid, date_time, INTERVAL '10 seconds') GROUP BY window_start, window_end, bidder""",
    "q15": """
SELECT window_start, count(*) AS bids, count(*) FILTER (WHERE price < 10000) AS low_bids,
       count(DISTINCT bidder) AS bidders, count(DISTINCT bidder) FILTER (WHERE price < 10000) AS low_bidders,
       count(DISTINCT auction) AS auctions, count(DISTINCT auction) FILTER (WHERE price < 10000) AS low_auctions
FROM TUMBLE(bid, date_time, INTERVAL '1 day') GROUP BY window_start, window_end""",
    "q17": """
SELECT window_start, auction, count(*) AS bids, count(*) FILTER (WHERE price < 10000) AS low,
       count(*) FILTER (WHERE price >= 10000 AND price < 1000000) AS middle, count(*) FILTER (WHERE price >= 1000000) AS high,
       min(price) AS least, max(price) AS most, sum(price) AS total
FROM TUMBLE(bid, date_time, INTERVAL '1 day') GROUP BY window_start, window_end, auction""",
    "q18": """
SELECT window_start, auction, bidder, price, date_time
FROM (SELECT *, row_number() OVER (PARTITION BY window_start, window_end, bidder, auction ORDER BY date_time DESC, price DESC) AS place
      FROM TUMBLE(bid, date_time, INTERVAL '10 seconds')) AS ranked WHERE place = 1""",
    "q19": """
SELECT window_start, auction, bidder, price, date_time, CAST(place AS BIGINT) AS place
FROM (SELECT *, row_number() OVER (PARTITION BY window_start, window_end, auction ORDER BY price DESC, date_time, bidder) AS place
      FROM TUMBLE(bid, date_time, INTERVAL '10 seconds')) AS ranked WHERE place <= 10""",
}

# What EMIT form to ask for; a query without windows passes its rows at once.
WINDROW_EMIT = {"QC": "EMIT CHANGES", "q2": "EMIT CHANGES"}


# ---------------------------------------------------------------------------------------------------------------------
# SQL engines. `{bin}` rounds a time down to a number of seconds since the epoch, `{ts}` makes a timestamp of one: how
# that is fastest differs between engines.

def _hop(size, slide):
    """Slices written by hand: count per slice, then each slice to the windows that it belongs to."""
    steps = size // slide
    return f"""
SELECT {{ts}}(s - k * {slide}) AS window_start, auction, CAST(sum(n) AS BIGINT) AS n
FROM (SELECT {{bin}}(date_time, {slide}) AS s, auction, count(*) AS n FROM bid GROUP BY 1, 2) AS slices,
     (VALUES {", ".join(f"({k})" for k in range(steps))}) AS steps(k)
GROUP BY s - k * {slide}, auction"""


def _hop_expanded(size, slide):
    """Each row once for each window that it belongs to, before the aggregate."""
    steps = size // slide
    return f"""
SELECT {{ts}}(w) AS window_start, auction, n FROM (
  SELECT {{bin}}(date_time, {slide}) - k * {slide} AS w, auction, count(*) AS n
  FROM bid, (VALUES {", ".join(f"({k})" for k in range(steps))}) AS steps(k) GROUP BY 1, 2) AS x"""


SQL = {
    "QA": ["""
SELECT {ts}(w) AS window_start, auction, n, total, highest FROM (
  SELECT {bin}(date_time, 10) AS w, auction, count(*) AS n, CAST(sum(price) AS BIGINT) AS total, max(price) AS highest
  FROM bid GROUP BY 1, 2) AS x"""],
    "QB": [_hop(10, 2), _hop_expanded(10, 2)],
    "QB60": [_hop(60, 1)],
    "QC": ["SELECT auction, bidder, 0.908 * CAST(price AS DOUBLE) AS price, date_time FROM bid WHERE price > 100000"],
    "q5": [f"""
WITH counts AS MATERIALIZED ({_hop(10, 2)})
SELECT c.window_start, c.auction, c.n FROM counts AS c
JOIN (SELECT window_start, max(n) AS highest FROM counts GROUP BY window_start) AS m
ON c.window_start = m.window_start AND c.n >= m.highest""", f"""
SELECT window_start, auction, n FROM (
  SELECT window_start, auction, n, max(n) OVER (PARTITION BY window_start) AS highest FROM ({_hop(10, 2)}) AS counts) AS x
WHERE n = highest"""],
    "q7": ["""
SELECT {ts}(b.w) AS window_start, b.auction, b.bidder, b.price
FROM (SELECT {bin}(date_time, 10) AS w, auction, bidder, price FROM bid) AS b
JOIN (SELECT {bin}(date_time, 10) AS w, max(price) AS highest FROM bid GROUP BY 1) AS m ON b.w = m.w AND b.price = m.highest"""],
    "q8": ["""
SELECT {ts}(p.w) AS starttime, p.id, p.name
FROM (SELECT DISTINCT {bin}(date_time, 10) AS w, id, name FROM person) AS p
JOIN (SELECT DISTINCT {bin}(date_time, 10) AS w, seller FROM auction) AS a ON p.w = a.w AND p.id = a.seller"""],
    "q2": ["SELECT auction, price FROM bid WHERE auction % 123 = 0"],
    "q12": ["""
SELECT {ts}(w) AS window_start, bidder, n FROM (SELECT {bin}(date_time, 10) AS w, bidder, count(*) AS n FROM bid GROUP BY 1, 2) AS x"""],
    "q15": ["""
SELECT {ts}(w) AS window_start, bids, low_bids, bidders, low_bidders, auctions, low_auctions FROM (
  SELECT {bin}(date_time, 86400) AS w, count(*) AS bids, count(*) FILTER (WHERE price < 10000) AS low_bids,
         count(DISTINCT bidder) AS bidders, count(DISTINCT bidder) FILTER (WHERE price < 10000) AS low_bidders,
         count(DISTINCT auction) AS auctions, count(DISTINCT auction) FILTER (WHERE price < 10000) AS low_auctions
  FROM bid GROUP BY 1) AS x"""],
    "q17": ["""
SELECT {ts}(w) AS window_start, auction, bids, low, middle, high, least, most, total FROM (
  SELECT {bin}(date_time, 86400) AS w, auction, count(*) AS bids, count(*) FILTER (WHERE price < 10000) AS low,
         count(*) FILTER (WHERE price >= 10000 AND price < 1000000) AS middle, count(*) FILTER (WHERE price >= 1000000) AS high,
         min(price) AS least, max(price) AS most, CAST(sum(price) AS BIGINT) AS total
  FROM bid GROUP BY 1, 2) AS x"""],
    "q18": ["""
SELECT {ts}(w) AS window_start, auction, bidder, price, date_time FROM (
  SELECT *, row_number() OVER (PARTITION BY w, bidder, auction ORDER BY date_time DESC, price DESC) AS place
  FROM (SELECT {bin}(date_time, 10) AS w, auction, bidder, price, date_time FROM bid) AS b) AS ranked WHERE place = 1"""],
    "q19": ["""
SELECT {ts}(w) AS window_start, auction, bidder, price, date_time, CAST(place AS BIGINT) AS place FROM (
  SELECT *, row_number() OVER (PARTITION BY w, auction ORDER BY price DESC, date_time, bidder) AS place
  FROM (SELECT {bin}(date_time, 10) AS w, auction, bidder, price, date_time FROM bid) AS b) AS ranked WHERE place <= 10"""],
}


def duckdb_sql(name):
    """DuckDB: integers are faster than time_bucket."""
    return [_fill(q, lambda c, s: f"epoch_ms({c}) // {s * 1000} * {s}", "to_ts") for q in SQL[name]]


def datafusion_sql(name):
    """DataFusion: integer division truncates, which is right after 1970."""
    return [
        _fill(q, lambda c, s: f"(CAST({c} AS BIGINT) / {{unit}} / {s} * {s})", "to_timestamp_seconds").replace("AS MATERIALIZED", "AS")
        for q in SQL[name]
    ]


def _fill(sql, bin_, ts):
    import re

    sql = re.sub(r"\{bin\}\((\w+), (\d+)\)", lambda m: bin_(m[1], int(m[2])), sql)
    return sql.replace("{ts}", ts)


# ---------------------------------------------------------------------------------------------------------------------
# Polars: lazy frames.

def polars_plans(name, scan):
    """The query as lazy frames over `scan(table)`, each a form to try."""
    import polars as pl

    def start(seconds):
        return pl.col("date_time").dt.truncate(f"{seconds}s").alias("window_start")

    def hop(size, slide):
        slices = scan("bid").group_by(start(slide), "auction").agg(pl.len().cast(pl.Int64).alias("n"))
        back = pl.LazyFrame({"k": [k * slide for k in range(size // slide)]})
        return (
            slices.join(back, how="cross")
            .with_columns(pl.col("window_start") - pl.duration(seconds=pl.col("k")))
            .group_by("window_start", "auction")
            .agg(pl.col("n").sum())
        )

    def hop_expanded(size, slide):
        back = pl.LazyFrame({"k": [k * slide for k in range(size // slide)]})
        return (
            scan("bid")
            .select(start(slide), "auction")
            .join(back, how="cross")
            .with_columns(pl.col("window_start") - pl.duration(seconds=pl.col("k")))
            .group_by("window_start", "auction")
            .agg(pl.len().cast(pl.Int64).alias("n"))
        )

    def concat_hop(size, slide):
        """As hop, by one shifted copy of the slices for each step."""
        slices = scan("bid").group_by(start(slide), "auction").agg(pl.len().cast(pl.Int64).alias("n"))
        shifted = [
            slices.with_columns(pl.col("window_start") - pl.duration(seconds=k * slide)) for k in range(size // slide)
        ]
        return pl.concat(shifted).group_by("window_start", "auction").agg(pl.col("n").sum())

    if name == "QA":
        price = pl.col("price")
        return [
            scan("bid")
            .group_by(start(10), "auction")
            .agg(pl.len().cast(pl.Int64).alias("n"), price.sum().alias("total"), price.max().alias("top"))
        ]
    if name == "QB":
        return [hop(10, 2), concat_hop(10, 2), hop_expanded(10, 2)]
    if name == "QB60":
        return [hop(60, 1)]
    if name == "QC":
        return [
            scan("bid")
            .filter(pl.col("price") > 100000)
            .select("auction", "bidder", (pl.col("price").cast(pl.Float64) * 0.908).alias("price"), "date_time")
        ]
    if name == "q5":
        def top(counts):
            return counts.filter(pl.col("n") == pl.col("n").max().over("window_start")).select("window_start", "auction", "n")

        def joined(counts):
            best = counts.group_by("window_start").agg(pl.col("n").max().alias("top"))
            return counts.join(best, on="window_start").filter(pl.col("n") >= pl.col("top")).select("window_start", "auction", "n")

        return [top(hop(10, 2)), joined(hop(10, 2)), joined(concat_hop(10, 2))]
    if name == "q7":
        bids = scan("bid").with_columns(start(10))
        best = bids.group_by("window_start").agg(pl.col("price").max())
        return [bids.join(best, on=["window_start", "price"]).select("window_start", "auction", "bidder", "price")]
    if name == "q8":
        people = scan("person").select(start(10), "id", "name").unique()
        sellers = scan("auction").select(start(10), pl.col("seller").alias("id")).unique()
        return [people.join(sellers, on=["window_start", "id"]).select("window_start", "id", "name")]
    if name == "q2":
        return [scan("bid").filter(pl.col("auction") % 123 == 0).select("auction", "price")]
    if name == "q12":
        return [scan("bid").group_by(start(10), "bidder").agg(pl.len().cast(pl.Int64).alias("n"))]
    price, low = pl.col("price"), pl.col("price") < 10000

    def number(of):
        return of.sum().cast(pl.Int64)

    if name == "q15":
        def distinct(column):
            return pl.col(column).n_unique().cast(pl.Int64)

        def low_distinct(column):
            return pl.col(column).filter(low).n_unique().cast(pl.Int64)

        return [
            scan("bid")
            .group_by(start(86400))
            .agg(
                pl.len().cast(pl.Int64).alias("bids"), number(low).alias("low_bids"),
                distinct("bidder").alias("bidders"), low_distinct("bidder").alias("low_bidders"),
                distinct("auction").alias("auctions"), low_distinct("auction").alias("low_auctions"),
            )
        ]
    if name == "q17":
        return [
            scan("bid")
            .group_by(start(86400), "auction")
            .agg(
                pl.len().cast(pl.Int64).alias("bids"), number(low).alias("low"),
                number((price >= 10000) & (price < 1000000)).alias("middle"), number(price >= 1000000).alias("high"),
                price.min().alias("least"), price.max().alias("most"), price.sum().alias("total"),
            )
        ]
    columns = ["window_start", "auction", "bidder", "price", "date_time"]
    bids = scan("bid").with_columns(start(10))
    if name == "q18":
        ordered = bids.sort("date_time", "price", descending=True)
        return [ordered.unique(["window_start", "bidder", "auction"], keep="first", maintain_order=True).select(columns)]
    if name == "q19":
        ordered = bids.sort(["price", "date_time", "bidder"], descending=[True, False, False])
        place = (pl.int_range(pl.len()).over("window_start", "auction") + 1).cast(pl.Int64).alias("place")
        return [ordered.with_columns(place).filter(pl.col("place") <= 10).select([*columns, "place"])]
    raise KeyError(name)
