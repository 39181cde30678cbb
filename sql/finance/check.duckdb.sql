-- The views of run.sql as DuckDB computes them from all rows of the streams. `n` is the order in which rows arrived.

CREATE TABLE prices AS
SELECT t.n, t.ts, t.symbol, l.opening * exp(t.changes) AS price, t.volume
FROM (SELECT n, ts, symbol, volume, sum(change) OVER (PARTITION BY symbol ORDER BY ts) AS changes
      FROM (SELECT *, max(ts) OVER (ORDER BY n ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) - INTERVAL '5 seconds' AS watermark FROM ticks)
      WHERE (watermark IS NULL OR ts >= watermark)
        AND NOT (symbol = 'DTE' AND ts >= TIMESTAMP '2026-09-14 11:20:00' AND ts < TIMESTAMP '2026-09-14 11:50:00')) AS t
JOIN listed AS l ON l.symbol = t.symbol;

CREATE TABLE bars AS
SELECT window_start, window_start + INTERVAL '1 minute' AS window_end, window_start + INTERVAL '1 minute' - INTERVAL '1 microsecond' AS window_time, symbol,
       first(price ORDER BY ts, n) AS open, max(price) AS high, min(price) AS low, last(price ORDER BY ts, n) AS close, sum(volume) AS volume
FROM (SELECT *, time_bucket(INTERVAL '1 minute', ts) AS window_start FROM prices)
GROUP BY window_start, symbol;

-- Every minute from the first bar of a symbol until an hour after its last one, up to the end of the data.
CREATE TABLE closes AS
WITH minutes AS (
    SELECT symbol, unnest(generate_series(min(window_end), max(window_end) + INTERVAL '1 hour', INTERVAL '1 minute')) AS window_end
    FROM bars GROUP BY symbol)
SELECT m.window_end - INTERVAL '1 microsecond' AS window_time, m.window_end, m.symbol,
       last_value(b.close IGNORE NULLS) OVER (PARTITION BY m.symbol ORDER BY m.window_end) AS close,
       b.symbol IS NULL AS filled
FROM minutes AS m LEFT JOIN bars AS b ON b.symbol = m.symbol AND b.window_end = m.window_end;

CREATE TABLE worth AS
SELECT window_time, window_end, p.fund, sum(p.quantity * c.close) AS worth, count(*) AS symbols
FROM closes AS c JOIN positions AS p ON p.symbol = c.symbol
GROUP BY window_time, window_end, p.fund;

CREATE TABLE returns AS
SELECT window_time, fund, worth, change FROM (
    SELECT window_time, fund, worth, worth / lag(worth) OVER (PARTITION BY fund ORDER BY window_time) - 1 AS change
    FROM worth WHERE symbols = 5)
WHERE change IS NOT NULL;

-- Each return is in the eight windows of two hours that contain it.
CREATE TABLE returns_in_windows AS
SELECT r.*, time_bucket(INTERVAL '15 minutes', r.window_time) - INTERVAL '15 minutes' * h AS window_start
FROM returns AS r, range(0, 8) AS hops (h);

CREATE TABLE value_at_risk AS
SELECT window_start, window_start + INTERVAL '2 hours' AS window_end, window_start + INTERVAL '2 hours' - INTERVAL '1 microsecond' AS window_time, fund,
       count(*) AS minutes, quantile_cont(change, 0.05) AS quantile,
       -quantile_cont(change, 0.05) * last(worth ORDER BY r.window_time) AS var95
FROM returns_in_windows AS r
GROUP BY window_start, fund HAVING count(*) >= 100;

CREATE TABLE shortfall AS
SELECT v.window_start, v.window_end, v.fund, avg(r.change) AS mean_of_the_worst, count(*) AS worst
FROM returns_in_windows AS r JOIN value_at_risk AS v ON v.window_start = r.window_start AND v.fund = r.fund AND r.change <= v.quantile
GROUP BY v.window_start, v.window_end, v.fund;

CREATE TABLE rebalancing AS
WITH shares AS (
    SELECT c.window_end, p.fund, c.symbol, c.close, p.quantity, p.target, p.band,
           sum(p.quantity * c.close) OVER (PARTITION BY c.window_end, p.fund) AS total,
           p.quantity * c.close / sum(p.quantity * c.close) OVER (PARTITION BY c.window_end, p.fund) AS share
    FROM closes AS c JOIN positions AS p ON p.symbol = c.symbol
    WHERE minute(c.window_end) % 15 = 0)
SELECT window_end, fund, symbol, share, target, CAST(round((target * total) / close - quantity) AS BIGINT) AS buy
FROM shares WHERE abs(share - target) > band;

CREATE TABLE in_euros AS
SELECT p.n, p.ts, p.card, p.country, CAST(p.amount AS DOUBLE) / coalesce(r.per_euro, 1) AS euros
FROM (SELECT *, max(ts) OVER (ORDER BY n ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) - INTERVAL '10 seconds' AS watermark FROM payments) AS p
ASOF LEFT JOIN rates AS r ON r.currency = p.currency AND p.ts >= r.ts
WHERE p.watermark IS NULL OR p.ts >= p.watermark;

-- The small payments directly before each large one, as far as they are less than ten minutes older
CREATE TABLE tried_out AS
WITH kinds AS (
    SELECT *, CASE WHEN euros < 2 THEN 'small' WHEN euros > 300 THEN 'large' ELSE 'other' END AS kind FROM in_euros),
runs AS (
    SELECT *, count(*) FILTER (WHERE kind <> 'small') OVER (PARTITION BY card ORDER BY ts, n ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS run
    FROM kinds)
SELECT l.card, min(s.ts) AS began, l.ts, count(*) AS tries, l.euros
FROM runs AS l JOIN runs AS s ON s.card = l.card AND s.run = l.run AND s.kind = 'small' AND s.ts > l.ts - INTERVAL '10 minutes'
WHERE l.kind = 'large'
GROUP BY l.card, l.n, l.ts, l.euros HAVING count(*) >= 2;

CREATE TABLE travelled AS
SELECT card, n, ts, country_before, country, euros FROM (
    SELECT card, n, ts, country, euros,
           lag(country) OVER (PARTITION BY card ORDER BY ts, n) AS country_before,
           lag(ts) OVER (PARTITION BY card ORDER BY ts, n) AS at_before
    FROM in_euros)
WHERE country <> country_before AND ts < at_before + INTERVAL '30 minutes' AND euros > 100;
