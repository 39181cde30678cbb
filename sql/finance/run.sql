-- Two funds on a day at the exchange: value at risk over the last two hours, rebalancing against target weights; and cards that are misused.
-- Run it from the root of the repository:   windrow run sql/finance/run.sql

-- 1. Trades. The generator stands in for the exchange; keep ts, symbol, price and volume. It gives each trade a change of price (heavier tails than a normal
--    distribution: one change in fifty is four times as large), and `prices` below adds them up. From 14:00 on all changes are three times as large, and
--    DTE is suspended from 11:20 to 11:50.
CREATE STREAM ticks (
    n      BIGINT,
    ts     TIMESTAMP,
    a      DOUBLE,
    b      DOUBLE,
    c      DOUBLE,
    symbol VARCHAR GENERATED ALWAYS AS (CASE n % 5 WHEN 0 THEN 'ALV' WHEN 1 THEN 'BAS' WHEN 2 THEN 'DTE' WHEN 3 THEN 'SAP' ELSE 'SIE' END),
    change DOUBLE GENERATED ALWAYS AS (
        0.0001 * (1 + n % 5 / 4.0) * sqrt(-2 * ln(1 - a)) * cos(2 * pi() * b)
        * CASE WHEN c < 0.02 THEN 4 ELSE 1 END * CASE WHEN n >= 21600 THEN 3 ELSE 1 END),
    volume BIGINT GENERATED ALWAYS AS (CAST(10 * ceil(20 * c * c + 1) AS BIGINT)),
    WATERMARK FOR ts AS ts - INTERVAL '5 seconds'
) WITH (
    connector = 'datagen', rows = 28790, seed = 9, start = '2026-09-14T08:00:03Z', 'interval' = '1 second', disorder = '3 seconds',
    fields.n.kind = 'sequence', fields.ts.kind = 'event_time'
);

-- 2. Payments by card, some in other currencies, and what a euro costs in these, every minute. Most amounts are small, a few are large (log-normal). Of
--    3,000 cards the first are used most; each is used in its country, and one row in 250 in another one. In every 1,500 rows somebody tries out a stolen card: three payments of cents, then a large one.
CREATE STREAM payments (
    n        BIGINT,
    ts       TIMESTAMP,
    a        DOUBLE,
    b        DOUBLE,
    c        DOUBLE,
    card     BIGINT GENERATED ALWAYS AS (CASE WHEN n % 1500 IN (700, 703, 707, 712) THEN 9000 + n / 1500 ELSE CAST(floor(3000 * c * c) AS BIGINT) END),
    amount   DECIMAL(10, 2) GENERATED ALWAYS AS (CAST(CASE WHEN n % 1500 IN (700, 703, 707) THEN 0.5 + a WHEN n % 1500 = 712 THEN 400 + 100 * a
             ELSE 0.5 + exp(3 + 1.1 * sqrt(-2 * ln(1 - a)) * cos(2 * pi() * b)) END AS DECIMAL(10, 2))),
    currency VARCHAR GENERATED ALWAYS AS (CASE WHEN c < 0.7 OR n % 5 > 0 THEN 'EUR' WHEN n % 3 = 0 THEN 'CHF' WHEN n % 3 = 1 THEN 'GBP' ELSE 'USD' END),
    country  VARCHAR GENERATED ALWAYS AS (CASE WHEN b < 0.004 THEN 'BR' WHEN c >= 0.5 AND c < 0.6 THEN 'FR' ELSE 'DE' END),
    WATERMARK FOR ts AS ts - INTERVAL '10 seconds'
) WITH (
    connector = 'datagen', rows = 14390, seed = 10, start = '2026-09-14T08:00:12Z', 'interval' = '2 seconds', disorder = '14 seconds',
    fields.n.kind = 'sequence', fields.ts.kind = 'event_time'
);

CREATE STREAM rates (
    n        BIGINT,
    ts       TIMESTAMP,
    luck     DOUBLE,
    currency VARCHAR GENERATED ALWAYS AS (CASE n % 3 WHEN 0 THEN 'CHF' WHEN 1 THEN 'GBP' ELSE 'USD' END),
    per_euro DOUBLE GENERATED ALWAYS AS (round((CASE n % 3 WHEN 0 THEN 0.94 WHEN 1 THEN 0.87 ELSE 1.16 END) * (1 + 0.002 * (luck - 0.5)), 5)),
    WATERMARK FOR ts
) WITH (
    connector = 'datagen', rows = 1440, seed = 12, start = '2026-09-14T07:59:00Z', 'interval' = '20 seconds',
    fields.n.kind = 'sequence', fields.ts.kind = 'event_time'
);

-- 3. What the funds own, and what share each symbol is to have.
CREATE EXTERNAL TABLE positions (fund VARCHAR, symbol VARCHAR, quantity BIGINT, target DOUBLE, band DOUBLE)
STORED AS CSV LOCATION 'sql/finance/positions.csv' OPTIONS ('format.has_header' 'true');

CREATE EXTERNAL TABLE listed (symbol VARCHAR, opening DOUBLE)
STORED AS CSV LOCATION 'sql/finance/listed.csv' OPTIONS ('format.has_header' 'true');

-- 4. Prices: the opening price, and all changes since then.
CREATE MATERIALIZED VIEW prices AS
SELECT t.n, t.ts, t.symbol, l.opening * exp(t.changes) AS price, t.volume
FROM (
    SELECT n, ts, symbol, volume, sum(change) OVER (PARTITION BY symbol ORDER BY ts) AS changes
    FROM ticks
    WHERE NOT (symbol = 'DTE' AND ts >= TIMESTAMP '2026-09-14 11:20:00' AND ts < TIMESTAMP '2026-09-14 11:50:00')
) AS t
JOIN listed AS l ON l.symbol = t.symbol;

-- 5. Bars of a minute; and the close of each minute, which is that of the minute before where nothing was traded (for an hour at most).
CREATE MATERIALIZED VIEW bars AS
SELECT window_start, window_end, window_time, symbol,
       first_value(price ORDER BY ts, n) AS open, max(price) AS high, min(price) AS low, last_value(price ORDER BY ts, n) AS close, sum(volume) AS volume
FROM TUMBLE(prices, ts, INTERVAL '1 minute')
GROUP BY window_start, window_end, window_time, symbol;

CREATE MATERIALIZED VIEW closes AS
SELECT window_time, window_end, symbol, close, filled
FROM FILL((SELECT window_time, window_end, symbol, close FROM bars)
          PARTITION BY symbol, window_time, INTERVAL '1 minute', INTERVAL '1 hour', fill => 'previous');

-- 6. What each fund is worth, every minute, and how that changed
CREATE MATERIALIZED VIEW worth AS
SELECT window_time, window_end, p.fund, sum(p.quantity * c.close) AS worth, count(*) AS symbols
FROM closes AS c JOIN positions AS p ON p.symbol = c.symbol
GROUP BY window_time, window_end, p.fund;

CREATE MATERIALIZED VIEW returns AS
SELECT window_time, fund, worth, change FROM (
    SELECT window_time, fund, worth, worth / lag(worth, 1) OVER (PARTITION BY fund ORDER BY window_time) - 1 AS change
    FROM worth WHERE symbols = 5)
WHERE change IS NOT NULL;

-- 7. Value at risk, by historical simulation: every quarter of an hour, the changes of the two hours before. What a minute loses at most in 95 of 100
--    cases, and (expected shortfall) what it loses on average in the others.
CREATE MATERIALIZED VIEW value_at_risk AS
SELECT window_start, window_end, window_time, fund, count(*) AS minutes,
       percentile_cont(0.05) WITHIN GROUP (ORDER BY change) AS quantile,
       -percentile_cont(0.05) WITHIN GROUP (ORDER BY change) * last_value(worth ORDER BY ts) AS var95
FROM HOP((SELECT window_time AS ts, fund, worth, change FROM returns), ts, INTERVAL '15 minutes', INTERVAL '2 hours')
GROUP BY window_start, window_end, window_time, fund
HAVING count(*) >= 100;

CREATE MATERIALIZED VIEW shortfall AS
SELECT v.window_start, v.window_end, v.fund, avg(r.change) AS mean_of_the_worst, count(*) AS worst
FROM HOP((SELECT window_time AS ts, fund, change FROM returns), ts, INTERVAL '15 minutes', INTERVAL '2 hours') AS r
JOIN value_at_risk AS v ON v.window_start = r.window_start AND v.window_end = r.window_end AND v.fund = r.fund AND r.change <= v.quantile
GROUP BY v.window_start, v.window_end, v.fund;

-- 8. Rebalancing, every quarter of an hour: orders where a share is further from its target than the band.
CREATE MATERIALIZED VIEW rebalancing AS
SELECT window_end, fund, symbol, share, target, CAST(round((target * total) / close - quantity) AS BIGINT) AS buy
FROM (
    SELECT c.window_end, p.fund, c.symbol, c.close, p.quantity, p.target, p.band,
           sum(p.quantity * c.close) OVER (PARTITION BY c.window_end, p.fund) AS total,
           p.quantity * c.close / sum(p.quantity * c.close) OVER (PARTITION BY c.window_end, p.fund) AS share
    FROM closes AS c JOIN positions AS p ON p.symbol = c.symbol
    WHERE date_part('minute', c.window_end) % 15 = 0
)
WHERE abs(share - target) > band;

-- 9. Payments in euros: the rate as of the payment
CREATE MATERIALIZED VIEW in_euros AS
SELECT p.n, p.ts, p.card, p.country, CAST(p.amount AS DOUBLE) / coalesce(r.per_euro, 1) AS euros
FROM payments AS p LEFT JOIN rates FOR SYSTEM_TIME AS OF p.ts AS r ON r.currency = p.currency;

-- 10. A stolen card is tried out: two payments or more of less than two euros, then one of more than 300, within ten minutes.
CREATE MATERIALIZED VIEW tried_out AS
SELECT card, began, ts, tries, euros
FROM in_euros MATCH_RECOGNIZE (
    PARTITION BY card ORDER BY ts, n
    MEASURES FIRST(small.ts) AS began, MATCH_ROWTIME() AS ts, count(small.*) AS tries, large.euros AS euros
    ONE ROW PER MATCH AFTER MATCH SKIP PAST LAST ROW
    PATTERN (small{2,} large) WITHIN INTERVAL '10' MINUTE
    DEFINE small AS small.euros < 2, large AS large.euros > 300
);

-- 11. A card that is in two countries within half an hour
CREATE MATERIALIZED VIEW travelled AS
SELECT card, n, ts, country_before, country, euros FROM (
    SELECT card, n, ts, country, euros,
           lag(country, 1) OVER (PARTITION BY card ORDER BY ts, n) AS country_before,
           lag(ts, 1) OVER (PARTITION BY card ORDER BY ts, n) AS at_before
    FROM in_euros)
WHERE country <> country_before AND ts < at_before + INTERVAL '30 minutes' AND euros > 100;

WAIT FOR shortfall;
WAIT FOR rebalancing;
WAIT FOR tried_out;
WAIT FOR travelled;

-- Value at risk and expected shortfall of a minute, in euros: see what 14:00 does to it.
SELECT v.window_end, v.fund, round(v.var95) AS var95, round(-s.mean_of_the_worst * v.var95 / -v.quantile) AS shortfall
FROM value_at_risk AS v JOIN shortfall AS s ON s.window_end = v.window_end AND s.fund = v.fund
WHERE date_part('minute', v.window_end) = 0 AND v.window_start >= TIMESTAMP '2026-09-14 08:00:00' AND v.window_end <= TIMESTAMP '2026-09-14 16:00:00'
ORDER BY v.fund, v.window_end;

-- The last orders of the day
SELECT window_end, fund, symbol, round(share, 4) AS share, target, buy FROM rebalancing
WHERE window_end = TIMESTAMP '2026-09-14 16:00:00' ORDER BY fund, symbol;

-- Cards that were tried out, and cards that travel
SELECT ts, card, tries, round(euros, 2) AS euros FROM tried_out ORDER BY ts;
SELECT ts, card, country_before, country, round(euros, 2) AS euros FROM travelled ORDER BY ts, card;

-- Some payments came too late for these.
SELECT * FROM windrow.ledger WHERE query IN ('prices', 'in_euros');
