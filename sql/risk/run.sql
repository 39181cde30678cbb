-- A trading desk on one day: what each counterparty owes until it settles, against limits that change; breaches, and when they end.
-- Run it from the root of the repository:   windrow run sql/risk/run.sql

-- 1. Deals, and their settlements about two hours later. The generator stands in for the desk and the clearing house; keep deal, counterparty, amount and ts.
--    Amounts are log-normal, some counterparties deal more than others, and TERN deals twice as much from noon on. One deal in fifty never settles; one in
--    forty is reported twice; one in three hundred is reported half an hour late.
CREATE STREAM deals (
    n            BIGINT,
    sent         TIMESTAMP,
    luck         DOUBLE,
    ts           TIMESTAMP GENERATED ALWAYS AS (CASE WHEN luck < 0.003 THEN sent - INTERVAL '30 minutes' ELSE sent END),
    deal         BIGINT GENERATED ALWAYS AS (n - n % 40 / 39),
    counterparty VARCHAR GENERATED ALWAYS AS (CASE
        WHEN n >= 4800 AND hash(n - n % 40 / 39, 'noon') % 8 = 0 THEN 'TERN'
        ELSE substr('HERNTERNTERNGULLGULLGULLLARKLARKLARKLARKKITEKITEKITEKITEWRENWRENCROWDOVESWANIBIS',
                    CAST(1 + 4 * (hash(n - n % 40 / 39, 'counterparty') % 20) AS BIGINT), 4) END),
    amount       DECIMAL(18, 2) GENERATED ALWAYS AS (CAST(round(exp(11 + CAST(hash(n - n % 40 / 39, 'amount') % 3000 AS DOUBLE) / 1000), 2) AS DECIMAL(18, 2))),
    WATERMARK FOR ts AS ts - INTERVAL '1 minute'
) WITH (
    connector = 'datagen', rows = 12000, seed = 3, start = '2026-11-16T07:00:20Z', 'interval' = '3 seconds', disorder = '20 seconds',
    fields.n.kind = 'sequence', fields.sent.kind = 'event_time'
);

CREATE STREAM settlements (
    n    BIGINT,
    sent TIMESTAMP,
    luck DOUBLE,
    deal BIGINT GENERATED ALWAYS AS (n - n % 40 / 39),
    ts   TIMESTAMP GENERATED ALWAYS AS (sent),
    fails BOOLEAN GENERATED ALWAYS AS (hash(n - n % 40 / 39, 'fails') % 50 = 0 OR n % 40 = 39),
    WATERMARK FOR ts AS ts - INTERVAL '15 minutes'
) WITH (
    connector = 'datagen', rows = 12000, seed = 4, start = '2026-11-16T09:05:00Z', 'interval' = '3 seconds', disorder = '10 minutes',
    fields.n.kind = 'sequence', fields.sent.kind = 'event_time'
);

-- 2. Limits are versions: each row holds from its time on, until the next one of its counterparty.
CREATE STREAM limits (ts TIMESTAMP, counterparty VARCHAR, up_to DECIMAL(18, 2), WATERMARK FOR ts)
WITH (connector = 'file', path = 'sql/risk/limits.csv', format = 'csv');

CREATE EXTERNAL TABLE counterparties (counterparty VARCHAR, name VARCHAR, rating VARCHAR, pd DOUBLE, lgd DOUBLE)
STORED AS CSV LOCATION 'sql/risk/counterparties.csv' OPTIONS ('format.has_header' 'true');

-- 3. Each deal once (the first row of it within ten minutes: what is remembered ends), and the settlements that happen.
CREATE MATERIALIZED VIEW booked AS
SELECT deal, ts, counterparty, amount FROM deals
QUALIFY first_value(n) OVER (PARTITION BY deal ORDER BY ts RANGE BETWEEN INTERVAL '10 minutes' PRECEDING AND CURRENT ROW) = n;

CREATE MATERIALIZED VIEW settled AS
SELECT deal, ts FROM settlements WHERE NOT fails;

-- 4. A deal and its settlement, which comes within three hours or not at all. What is not settled by then is a failed deal, known three hours after it was made.
CREATE MATERIALIZED VIEW lifecycles AS
SELECT b.deal, b.counterparty, b.amount, b.ts AS booked_at, s.ts AS settled_at
FROM booked AS b LEFT JOIN settled AS s ON s.deal = b.deal AND s.ts >= b.ts AND s.ts <= b.ts + INTERVAL '3 hours';

CREATE MATERIALIZED VIEW failed AS
SELECT window_start, window_end, counterparty, count(*) AS deals, count(*) - count(settled_at) AS failed,
       sum(amount) FILTER (WHERE settled_at IS NULL) AS amount
FROM TUMBLE(lifecycles, booked_at, INTERVAL '1 hour')
GROUP BY window_start, window_end, counterparty;

-- 5. Exposure: what was dealt less what was settled, after every movement.
CREATE MATERIALIZED VIEW movements AS
SELECT b.deal, b.ts, b.counterparty, b.amount FROM booked AS b
UNION ALL
SELECT b.deal, s.ts, b.counterparty, -b.amount
FROM booked AS b JOIN settled AS s ON s.deal = b.deal AND s.ts >= b.ts AND s.ts <= b.ts + INTERVAL '3 hours';

CREATE MATERIALIZED VIEW exposures AS
SELECT deal, ts, counterparty, amount,
       sum(amount) OVER (PARTITION BY counterparty ORDER BY ts, deal, amount ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS exposure
FROM movements;

-- 6. Against the limit that holds at that time
CREATE MATERIALIZED VIEW used AS
SELECT e.deal, e.ts, e.counterparty, e.exposure, l.up_to, CAST(e.exposure AS DOUBLE) / CAST(l.up_to AS DOUBLE) AS share
FROM exposures AS e JOIN limits FOR SYSTEM_TIME AS OF e.ts AS l ON l.counterparty = e.counterparty;

-- 7. A breach begins with the first row above the limit and ends with the first one that is not, if there is one.
CREATE MATERIALIZED VIEW breaches AS
SELECT counterparty, began, ended, peak, movements
FROM used MATCH_RECOGNIZE (
    PARTITION BY counterparty ORDER BY ts, deal, exposure
    MEASURES FIRST(above.ts) AS began, LAST(back.ts) AS ended, max(above.exposure) AS peak, count(above.*) AS movements, MATCH_ROWTIME() AS ts
    ONE ROW PER MATCH AFTER MATCH SKIP PAST LAST ROW
    PATTERN (above+ back?) WITHIN INTERVAL '1' DAY
    DEFINE above AS above.share > 1
);

-- 8. Messages with hysteresis: firing above 100 %, resolved below 90 %. What happens in between changes nothing.
CREATE MATERIALIZED VIEW alerts AS
SELECT ts, counterparty, state, exposure, up_to
FROM (
    SELECT *, lag(state, 1) OVER (PARTITION BY counterparty ORDER BY ts, deal, exposure) AS before
    FROM (SELECT *, CASE WHEN share > 1 THEN 'firing' ELSE 'resolved' END AS state FROM used WHERE share > 1 OR share < 0.9)
)
WHERE state <> coalesce(before, 'resolved');

-- 9. Every quarter of an hour: exposure and expected loss by counterparty, and how concentrated the book is (the sum of squared shares; 1 is a single name).
CREATE MATERIALIZED VIEW quarters AS
SELECT window_start, window_end, window_time, counterparty,
       last_value(exposure ORDER BY ts, deal, exposure) AS exposure, max(exposure) AS peak
FROM TUMBLE(used, ts, INTERVAL '15 minutes')
GROUP BY window_start, window_end, window_time, counterparty;

CREATE MATERIALIZED VIEW losses AS
SELECT q.window_time, q.window_end, q.counterparty, c.rating, q.exposure, CAST(q.exposure AS DOUBLE) * c.pd * c.lgd AS expected_loss
FROM FILL((SELECT window_time, window_end, counterparty, exposure FROM quarters)
          PARTITION BY counterparty, window_time, INTERVAL '15 minutes', INTERVAL '2 hours', fill => 'previous') AS q
JOIN counterparties AS c ON c.counterparty = q.counterparty;

CREATE MATERIALIZED VIEW concentration AS
SELECT window_end, count(*) AS names, sum(exposure) AS exposure, sum(expected_loss) AS expected_loss, sum(share * share) AS herfindahl, max(share) AS largest
FROM (SELECT window_end, exposure, expected_loss,
             CAST(exposure AS DOUBLE) / sum(CAST(exposure AS DOUBLE)) OVER (PARTITION BY window_end) AS share
      FROM losses WHERE exposure > 0)
GROUP BY window_end;

WAIT FOR breaches;
WAIT FOR alerts;
WAIT FOR concentration;
WAIT FOR failed;

-- The breaches, the highest first
SELECT counterparty, began, ended, peak, movements FROM breaches ORDER BY peak DESC, began LIMIT 8;

-- The messages to the desk
SELECT ts, counterparty, state, exposure, up_to FROM alerts ORDER BY ts, counterparty LIMIT 12;

-- The book by the hour
SELECT window_end, names, exposure, round(expected_loss) AS expected_loss, round(herfindahl, 3) AS herfindahl, round(largest, 3) AS largest
FROM concentration WHERE date_part('minute', window_end) = 0 ORDER BY window_end;

-- Who does not settle
SELECT counterparty, sum(deals) AS deals, sum(failed) AS failed, sum(amount) AS amount FROM failed GROUP BY counterparty ORDER BY failed DESC, counterparty LIMIT 5;

-- Deals that were reported half an hour late are in no exposure: they are here instead.
SELECT row ->> 'counterparty' AS counterparty, count(*) AS late, sum(CAST(row ->> 'amount' AS DECIMAL(18, 2))) AS amount
FROM windrow.late_rows WHERE query = 'booked' GROUP BY 1 ORDER BY 1;
