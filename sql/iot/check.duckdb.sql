-- The views of run.sql as DuckDB computes them from all rows of the streams. `n` is the order in which rows arrived; NULL times are bad rows.

CREATE TABLE heard AS
SELECT reading, taken, pump, vibration, temperature
FROM (SELECT *, max(taken) OVER (ORDER BY n ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) - INTERVAL '10 minutes' AS watermark
      FROM readings WHERE taken IS NOT NULL)
WHERE (watermark IS NULL OR taken >= watermark)
  AND NOT (pump = 6 AND taken >= TIMESTAMP '2026-05-08 08:00:00' AND taken < TIMESTAMP '2026-05-08 17:00:00')
QUALIFY first_value(n) OVER (PARTITION BY reading ORDER BY taken RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW) = n;

CREATE TABLE hours AS
SELECT window_start, window_start + INTERVAL '1 hour' AS window_end, window_start + INTERVAL '1 hour' - INTERVAL '1 microsecond' AS window_time,
       pump, count(*) AS readings, avg(vibration) AS vibration, max(vibration) AS peak, avg(temperature) AS temperature
FROM (SELECT *, time_bucket(INTERVAL '1 hour', taken) AS window_start FROM heard)
GROUP BY window_start, pump;

-- Every hour from the first one of a pump that it has none of, for a day at most
CREATE TABLE silence AS
WITH ends AS (
    SELECT pump, unnest(generate_series(min(window_end), max(window_end) + INTERVAL '1 day', INTERVAL '1 hour')) AS window_end FROM hours GROUP BY pump),
filled AS (
    SELECT e.pump, e.window_end, h.pump IS NULL AS filled, last_value(h.window_end IGNORE NULLS) OVER (PARTITION BY e.pump ORDER BY e.window_end) AS known_at
    FROM ends AS e LEFT JOIN hours AS h ON h.pump = e.pump AND h.window_end = e.window_end)
SELECT window_end, pump FROM filled WHERE filled AND window_end <= known_at + INTERVAL '1 day';

CREATE TABLE compared AS
SELECT window_time, window_end, pump, vibration, temperature,
       (vibration - avg(vibration) OVER usual) / stddev(vibration) OVER usual AS vibration_z,
       (temperature - avg(temperature) OVER usual) / stddev(temperature) OVER usual AS temperature_z,
       count(*) OVER usual AS hours
FROM hours
WINDOW usual AS (PARTITION BY pump ORDER BY window_time RANGE BETWEEN INTERVAL '7 days' PRECEDING AND INTERVAL '2 days' PRECEDING);

CREATE TABLE defects AS
WITH odd AS (
    SELECT *, vibration_z > 3.5 OR temperature_z > 3.5 AS is_odd FROM compared WHERE hours >= 48),
runs AS (
    SELECT *, row_number() OVER (PARTITION BY pump ORDER BY window_time) - row_number() OVER (PARTITION BY pump, is_odd ORDER BY window_time) AS run FROM odd)
SELECT pump, min(window_end) AS began, max(window_end) AS ended, count(*) AS hours, max(vibration) AS most,
       CASE WHEN avg(temperature_z) > avg(vibration_z) THEN 'cooling' ELSE 'bearing' END AS kind
FROM runs WHERE is_odd GROUP BY pump, run HAVING count(*) >= 5;

CREATE TABLE trends AS
SELECT window_start, window_start + INTERVAL '2 days' AS window_end, window_start + INTERVAL '2 days' - INTERVAL '1 microsecond' AS window_time, pump,
       count(*) AS hours, regr_slope(vibration, epoch(ts) / 3600) AS per_hour, regr_r2(vibration, epoch(ts) / 3600) AS fit, last(vibration ORDER BY ts) AS vibration
FROM (SELECT h.pump, h.vibration, h.window_time AS ts, time_bucket(INTERVAL '6 hours', h.window_time) - INTERVAL '6 hours' * k AS window_start
      FROM hours AS h, range(0, 8) AS hops (k))
GROUP BY window_start, pump HAVING count(*) >= 40;

CREATE TABLE forecasts AS
SELECT t.window_time, t.window_end, t.pump, p.hall, p.part, t.vibration, t.per_hour, (p.vibration_max - t.vibration) / t.per_hour AS hours_left
FROM trends AS t JOIN pumps AS p ON p.pump = t.pump
WHERE t.fit > 0.6 AND t.per_hour > 0.004;

CREATE TABLE needs AS
SELECT window_time, window_end, pump, part, hours_left
FROM (SELECT f.*, count(*) OVER (PARTITION BY f.pump ORDER BY f.window_time RANGE BETWEEN INTERVAL '14 days' PRECEDING AND CURRENT ROW) AS times
      FROM forecasts AS f JOIN parts AS s ON s.part = f.part WHERE f.hours_left < 1.5 * s.lead_hours)
WHERE times = 1;

CREATE TABLE orders AS
SELECT n.window_time, n.window_end, n.pump, n.part, s.supplier, s.price, n.hours_left, n.window_end + to_hours(s.lead_hours) AS arrives, n.needed > s.stock AS ordered
FROM (SELECT *, row_number() OVER (PARTITION BY part ORDER BY window_time, pump) AS needed FROM needs) AS n JOIN parts AS s ON s.part = n.part;
