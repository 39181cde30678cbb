-- Service assurance: a solar company guarantees a yield, and pays for what its panels deliver below it.
-- Run it from the root of the repository:   windrow run sql/service-assurance/run.sql

-- 1. The meters. Twenty panels report by radio every two minutes. The generator stands in for them: keep the columns panel, taken
--    and watts, and any other connector will do. What it makes of its random numbers is a June weekend near 52° N:
--      panel 5   is covered by dust, more with each hour of Sunday
--      panel 11  loses one of its two strings on Saturday from 11:00 to 14:30
--      panel 14  is silent on Sunday from 10:00 to 13:00: the view below it drops its rows
--      panel 7   is behind a hill: one of seven of its rows comes 40 minutes late
--    One row in a thousand has no time (a bad row), one in a hundred is lost on the air, one in two thousand says 65535 watts.
CREATE STREAM meters (
    n     BIGINT,
    sent  TIMESTAMP,
    luck  DOUBLE,
    noise DOUBLE,
    panel BIGINT GENERATED ALWAYS AS (n % 20 + 1),
    taken TIMESTAMP GENERATED ALWAYS AS (
        CASE WHEN n % 20 = 6 AND luck < 0.15 THEN sent - INTERVAL '40 minutes' ELSE sent END),
    watts DOUBLE GENERATED ALWAYS AS (
        CASE WHEN luck > 0.9995 THEN 65535.0
        ELSE round(
            1000 * (4 + (n % 20 + 1) % 3) * (0.84 + 0.04 * noise)
            * greatest(0.0, sin(pi() * (date_part('hour', sent) + date_part('minute', sent) / 60.0 - 4) / 17))
            * (0.8 + 0.2 * sin(date_part('epoch', sent) / 2900.0 + n % 4))
            * CASE WHEN n % 20 = 4 AND sent >= TIMESTAMP '2026-06-21 06:00:00' THEN 1 - 0.02 * (date_part('hour', sent) - 5)
                   WHEN n % 20 = 10 AND sent >= TIMESTAMP '2026-06-20 11:00:00' AND sent < TIMESTAMP '2026-06-20 14:30:00' THEN 0.5
                   ELSE 1.0 END, 1) END),
    WATERMARK FOR taken AS taken - INTERVAL '5 minutes'
) WITH (
    connector = 'datagen', rows = 28770, seed = 20, start = '2026-06-20T00:01:30Z', 'interval' = '6 seconds', disorder = '90 seconds',
    fields.n.kind = 'sequence', fields.sent.kind = 'event_time', fields.sent.null_share = 0.001
);

-- 2. The sun. Each of the four sites has a station that measures irradiance in the plane of the panels.
CREATE STREAM stations (
    n     BIGINT,
    taken TIMESTAMP,
    noise DOUBLE,
    site  BIGINT GENERATED ALWAYS AS (n % 4),
    irradiance DOUBLE GENERATED ALWAYS AS (round(
        1000 * (0.99 + 0.02 * noise)
        * greatest(0.0, sin(pi() * (date_part('hour', taken) + date_part('minute', taken) / 60.0 - 4) / 17))
        * (0.8 + 0.2 * sin(date_part('epoch', taken) / 2900.0 + n % 4)), 1)),
    WATERMARK FOR taken AS taken - INTERVAL '5 minutes'
) WITH (
    connector = 'datagen', rows = 5756, seed = 21, start = '2026-06-20T00:00:20Z', 'interval' = '30 seconds', disorder = '20 seconds',
    fields.n.kind = 'sequence', fields.taken.kind = 'event_time'
);

-- 3. The contracts: the peak power of a panel, the guaranteed performance ratio, what a missing kWh costs.
CREATE EXTERNAL TABLE contracts (panel BIGINT, customer VARCHAR, site BIGINT, kwp DOUBLE, guaranteed DOUBLE, per_kwh DOUBLE)
STORED AS CSV LOCATION 'sql/service-assurance/contracts.csv' OPTIONS ('format.has_header' 'true');

-- 4. Rows that are lost on the air, the silence of panel 14, and sensors that answer with all bits set.
CREATE VIEW readings AS
SELECT n, panel, taken, watts FROM meters
WHERE luck >= 0.01 AND watts < 20000
  AND NOT (panel = 14 AND taken >= TIMESTAMP '2026-06-21 10:00:00' AND taken < TIMESTAMP '2026-06-21 13:00:00');

-- 5. Quarters of an hour: what the sun gave (kWh per m²), and what each panel delivered (kWh). A reading stands for its two minutes.
CREATE MATERIALIZED VIEW sunshine AS
SELECT window_start, window_end, window_time, site, avg(irradiance) * 0.25 / 1000 AS irradiation
FROM TUMBLE(stations, taken, INTERVAL '15 minutes')
GROUP BY window_start, window_end, window_time, site;

CREATE MATERIALIZED VIEW produced AS
SELECT window_start, window_end, window_time, panel, count(*) AS readings, sum(watts) * 2 / 60 / 1000 AS kwh
FROM TUMBLE(readings, taken, INTERVAL '15 minutes')
GROUP BY window_start, window_end, window_time, panel;

-- 6. Promised and delivered. Every contract has a row in every quarter of its site, whether its panel said anything or not: silence is 0 kWh.
--    The promise is the one of such contracts: irradiation × peak power × performance ratio.
CREATE MATERIALIZED VIEW quarters AS
SELECT s.window_start, s.window_end, s.window_time, c.customer, c.panel,
       s.irradiation * c.kwp * c.guaranteed AS promised,
       coalesce(p.kwh, 0) AS delivered,
       coalesce(p.readings, 0) AS readings,
       c.per_kwh
FROM sunshine AS s
JOIN contracts AS c ON c.site = s.site
LEFT JOIN produced AS p ON p.window_end = s.window_end AND p.panel = c.panel;

-- 7. The bill so far, every hour of a day. 3 % below the promise are free; what one panel delivers above its promise does not help another.
CREATE MATERIALIZED VIEW bills AS
SELECT window_start, window_end, window_time, customer, panel,
       sum(promised) AS promised, sum(delivered) AS delivered,
       greatest(0.97 * sum(promised) - sum(delivered), 0) * max(per_kwh) AS penalty
FROM CUMULATE((SELECT window_time AS ts, customer, panel, promised, delivered, per_kwh FROM quarters), ts, INTERVAL '1 hour', INTERVAL '1 day')
GROUP BY window_start, window_end, window_time, customer, panel;

-- 8. Outages: at least three quarters in a row in which a panel delivers less than 80 % of its promise, while the sun shines. Each is one row when it is over.
CREATE MATERIALIZED VIEW outages AS
SELECT panel, began, ended, quarters, silent, promised - delivered AS missing, ts
FROM (SELECT * FROM quarters WHERE promised > 0.2) MATCH_RECOGNIZE (
    PARTITION BY panel ORDER BY window_time
    MEASURES FIRST(low.window_start) AS began, LAST(low.window_end) AS ended, count(low.*) AS quarters,
             count(low.*) FILTER (WHERE low.readings = 0) AS silent,
             sum(low.promised) AS promised, sum(low.delivered) AS delivered, MATCH_ROWTIME() AS ts
    ONE ROW PER MATCH AFTER MATCH SKIP PAST LAST ROW
    PATTERN (low{3,}) WITHIN INTERVAL '1' DAY
    DEFINE low AS low.delivered < 0.8 * low.promised
);

-- 9. The alert does not wait for the end: it fires with the third low quarter in a row, and is resolved by the first good one.
CREATE MATERIALIZED VIEW alerts AS
SELECT window_time, panel, customer, state, delivered, promised
FROM (
    SELECT *, lag(state, 1) OVER (PARTITION BY panel ORDER BY window_time) AS before
    FROM (
        SELECT *, CASE WHEN low_quarters = 3 THEN 'firing' ELSE 'resolved' END AS state
        FROM (
            SELECT *, sum(CASE WHEN delivered < 0.8 * promised THEN 1 ELSE 0 END)
                      OVER (PARTITION BY panel ORDER BY window_time ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) AS low_quarters
            FROM quarters WHERE promised > 0.2
        )
        WHERE low_quarters = 3 OR delivered >= 0.8 * promised
    )
)
WHERE state <> coalesce(before, 'resolved');

WAIT FOR bills;
WAIT FOR outages;
WAIT FOR alerts;

-- What is owed for each day
SELECT window_start AS day, customer, round(sum(promised), 1) AS promised, round(sum(delivered), 1) AS delivered, round(sum(penalty), 2) AS penalty
FROM bills WHERE window_end = window_start + INTERVAL '1 day' GROUP BY window_start, customer ORDER BY day, customer;

-- The panels that cost something
SELECT window_start AS day, panel, customer, round(promised, 1) AS promised, round(delivered, 1) AS delivered, round(penalty, 2) AS penalty
FROM bills WHERE window_end = window_start + INTERVAL '1 day' AND penalty > 0 ORDER BY day, panel;

-- The outages, the worst first
SELECT panel, began, ended, quarters, silent, round(missing, 2) AS missing_kwh FROM outages ORDER BY missing DESC, panel, began;

-- The messages that an operator gets
SELECT window_time, panel, state, round(delivered, 2) AS delivered, round(promised, 2) AS promised FROM alerts ORDER BY window_time, panel;

-- Rows that came too late: the energy of these readings is missing in the bill, and the operator can prove it.
SELECT row ->> 'panel' AS panel, count(*) AS late_rows, round(sum(CAST(row ->> 'watts' AS DOUBLE)) * 2 / 60 / 1000, 2) AS kwh
FROM windrow.late_rows WHERE query = 'produced' GROUP BY 1 ORDER BY 1;

SELECT * FROM windrow.ledger WHERE query IN ('produced', 'sunshine', 'quarters');
