-- Twenty pumps over two weeks: bearings that wear out are seen days before they fail, and spare parts are ordered in time.
-- Run it from the root of the repository:   windrow run sql/iot/run.sql

-- 1. Readings: vibration (velocity in mm/s RMS, as ISO 10816 has it) and temperature, every ten minutes. The generator stands in for the gateways; keep
--    reading, taken, pump, vibration and temperature. What it makes:
--      pumps 3, 8, 15 and 17  wear from day 4, 6, 8 and 9 on; pump 3 gets a new bearing on day 12
--      pump 12                runs hot on day 10 (its cooling is blocked), without vibration
--      pump 6                 is offline on day 5 from 08:00 to 17:00
--    Every twentieth row is the reading before it once more (two gateways heard it), three in a thousand come two hours late, one in two thousand has no time.
CREATE STREAM readings (
    n       BIGINT,
    sent    TIMESTAMP,
    a       DOUBLE,
    b       DOUBLE,
    c       DOUBLE,
    reading BIGINT GENERATED ALWAYS AS (n - n % 21 / 20),
    taken   TIMESTAMP GENERATED ALWAYS AS (CASE WHEN c < 0.003 THEN sent - INTERVAL '2 hours' ELSE sent END),
    pump    BIGINT GENERATED ALWAYS AS ((n - n % 21 / 20) % 20 + 1),
    vibration DOUBLE GENERATED ALWAYS AS (round(
        1.6 + 0.05 * ((n - n % 21 / 20) % 20) + 0.18 * sqrt(-2 * ln(1 - a)) * cos(2 * pi() * b)
        + CASE (n - n % 21 / 20) % 20
            WHEN 2 THEN CASE WHEN n < 34560 THEN 0.12 * (exp(0.5 * greatest(0.0, n / 2880.0 - 4)) - 1) ELSE 0.0 END
            WHEN 7 THEN 0.15 * (exp(0.45 * greatest(0.0, n / 2880.0 - 6)) - 1)
            WHEN 14 THEN 0.2 * (exp(0.5 * greatest(0.0, n / 2880.0 - 8)) - 1)
            WHEN 16 THEN 0.1 * (exp(0.6 * greatest(0.0, n / 2880.0 - 9)) - 1)
            ELSE 0.0 END, 3)),
    temperature DOUBLE GENERATED ALWAYS AS (round(
        46 + 6 * sin(2 * pi() * n / 2880.0) + 1.2 * sqrt(-2 * ln(1 - a)) * sin(2 * pi() * b)
        + CASE WHEN (n - n % 21 / 20) % 20 = 11 AND n >= 28800 AND n < 31680 THEN 18.0 ELSE 0.0 END, 2)),
    WATERMARK FOR taken AS taken - INTERVAL '10 minutes'
) WITH (
    connector = 'datagen', rows = 40316, seed = 14, start = '2026-05-04T00:02:00Z', 'interval' = '30 seconds', disorder = '2 minutes',
    fields.n.kind = 'sequence', fields.sent.kind = 'event_time', fields.sent.null_share = 0.0005
);

-- 2. What is built into which pump; and the parts: how long a supplier takes, what is in stock, what it costs.
CREATE EXTERNAL TABLE pumps (pump BIGINT, hall VARCHAR, part VARCHAR, vibration_max DOUBLE)
STORED AS CSV LOCATION 'sql/iot/pumps.csv' OPTIONS ('format.has_header' 'true');

CREATE EXTERNAL TABLE parts (part VARCHAR, supplier VARCHAR, lead_hours BIGINT, stock BIGINT, price DECIMAL(10, 2))
STORED AS CSV LOCATION 'sql/iot/parts.csv' OPTIONS ('format.has_header' 'true');

-- 3. Each reading once, without those of the pump that is offline.
CREATE MATERIALIZED VIEW heard AS
SELECT reading, taken, pump, vibration, temperature
FROM readings
WHERE NOT (pump = 6 AND taken >= TIMESTAMP '2026-05-08 08:00:00' AND taken < TIMESTAMP '2026-05-08 17:00:00')
QUALIFY first_value(n) OVER (PARTITION BY reading ORDER BY taken RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW) = n;

-- 4. By the hour; hours without a reading have a row, too.
CREATE MATERIALIZED VIEW hours AS
SELECT window_start, window_end, window_time, pump, count(*) AS readings, avg(vibration) AS vibration, max(vibration) AS peak, avg(temperature) AS temperature
FROM TUMBLE(heard, taken, INTERVAL '1 hour')
GROUP BY window_start, window_end, window_time, pump;

CREATE MATERIALIZED VIEW silence AS
SELECT window_end, pump
FROM FILL((SELECT window_time, window_end, pump, readings FROM hours) PARTITION BY pump, window_time, INTERVAL '1 hour', INTERVAL '1 day')
WHERE filled;

-- 5. Against what is usual for this pump: the week before, without the last two days.
CREATE MATERIALIZED VIEW compared AS
SELECT window_time, window_end, pump, vibration, temperature,
       (vibration - avg(vibration) OVER usual) / stddev(vibration) OVER usual AS vibration_z,
       (temperature - avg(temperature) OVER usual) / stddev(temperature) OVER usual AS temperature_z,
       count(*) OVER usual AS hours
FROM hours
WINDOW usual AS (PARTITION BY pump ORDER BY window_time RANGE BETWEEN INTERVAL '7 days' PRECEDING AND INTERVAL '2 days' PRECEDING);

-- 6. A defect in its beginning: at least five hours in a row that are unusual. The kind says what it is.
CREATE MATERIALIZED VIEW defects AS
SELECT pump, began, ended, hours, most, CASE WHEN temperature_z > vibration_z THEN 'cooling' ELSE 'bearing' END AS kind
FROM (SELECT * FROM compared WHERE hours >= 48) MATCH_RECOGNIZE (
    PARTITION BY pump ORDER BY window_time
    MEASURES FIRST(odd.window_end) AS began, LAST(odd.window_end) AS ended, count(odd.*) AS hours, max(odd.vibration) AS most,
             avg(odd.vibration_z) AS vibration_z, avg(odd.temperature_z) AS temperature_z, MATCH_ROWTIME() AS ts
    ONE ROW PER MATCH AFTER MATCH SKIP PAST LAST ROW
    PATTERN (odd{5,}) WITHIN INTERVAL '30' DAY
    DEFINE odd AS odd.vibration_z > 3.5 OR odd.temperature_z > 3.5
);

-- 7. Where it leads: the straight line through the last two days, every six hours, and when it reaches what the pump may have.
CREATE MATERIALIZED VIEW trends AS
SELECT window_start, window_end, window_time, pump, count(*) AS hours,
       regr_slope(vibration, date_part('epoch', ts) / 3600) AS per_hour,
       regr_r2(vibration, date_part('epoch', ts) / 3600) AS fit,
       last_value(vibration ORDER BY ts) AS vibration
FROM HOP((SELECT window_time AS ts, pump, vibration FROM hours), ts, INTERVAL '6 hours', INTERVAL '2 days')
GROUP BY window_start, window_end, window_time, pump
HAVING count(*) >= 40;

CREATE MATERIALIZED VIEW forecasts AS
SELECT t.window_time, t.window_end, t.pump, p.hall, p.part, t.vibration, t.per_hour, (p.vibration_max - t.vibration) / t.per_hour AS hours_left
FROM trends AS t JOIN pumps AS p ON p.pump = t.pump
WHERE t.fit > 0.6 AND t.per_hour > 0.004;

-- 8. A part is needed as soon as the forecast is shorter than what its supplier takes and half of it for safety. One order for each pump in 14 days.
CREATE MATERIALIZED VIEW needs AS
SELECT window_time, window_end, pump, part, hours_left
FROM (
    SELECT f.window_time, f.window_end, f.pump, f.part, f.hours_left,
           count(*) OVER (PARTITION BY f.pump ORDER BY f.window_time RANGE BETWEEN INTERVAL '14 days' PRECEDING AND CURRENT ROW) AS times
    FROM forecasts AS f JOIN parts AS s ON s.part = f.part
    WHERE f.hours_left < 1.5 * s.lead_hours
)
WHERE times = 1;

-- 9. The first of a part come from the stock, the others are ordered.
CREATE MATERIALIZED VIEW orders AS
SELECT n.window_time, n.window_end, n.pump, n.part, s.supplier, s.price, n.hours_left,
       n.window_end + s.lead_hours * INTERVAL '1 hour' AS arrives, n.needed > s.stock AS ordered
FROM (SELECT *, row_number() OVER (PARTITION BY part ORDER BY window_time, pump) AS needed FROM needs) AS n
JOIN parts AS s ON s.part = n.part;

WAIT FOR silence;
WAIT FOR defects;
WAIT FOR orders;

-- Defects in their beginning
SELECT pump, kind, began, ended, hours, round(most, 2) AS most FROM defects ORDER BY began, pump;

-- What is taken from the stock and what is ordered, with the hours that the pump has left by its trend
SELECT window_end, pump, part, round(hours_left) AS hours_left, CASE WHEN ordered THEN supplier ELSE 'stock' END AS from_where,
       CASE WHEN ordered THEN arrives END AS arrives
FROM orders ORDER BY window_end, pump;

-- The pump with the shortest time left, day by day
SELECT window_end, pump, round(vibration, 2) AS vibration, round(hours_left) AS hours_left FROM forecasts
WHERE date_part('hour', window_end) = 0 AND pump = 17 ORDER BY window_end;

-- Hours without a reading
SELECT pump, count(*) AS silent_hours, min(window_end) AS first_hour_until, max(window_end) AS last_hour_until
FROM silence WHERE window_end <= TIMESTAMP '2026-05-18 00:00:00' GROUP BY pump ORDER BY pump;

SELECT stream, reason, count(*) AS rows FROM windrow.bad_rows GROUP BY stream, reason;
SELECT * FROM windrow.ledger WHERE query IN ('heard', 'hours', 'trends');
