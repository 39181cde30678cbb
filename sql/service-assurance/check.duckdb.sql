-- The views of run.sql as DuckDB computes them from all rows of the streams. `n` is the order in which rows arrived; NULL times are bad rows.

-- The watermark just before each row. A row is late for a window that this has passed.
CREATE VIEW readings_arrived AS
SELECT *, max(taken) OVER (ORDER BY n ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) - INTERVAL '5 minutes' AS watermark
FROM meters WHERE taken IS NOT NULL;

CREATE TABLE sunshine AS
SELECT window_start, window_start + INTERVAL '15 minutes' AS window_end, window_start + INTERVAL '15 minutes' - INTERVAL '1 microsecond' AS window_time,
       site, avg(irradiance) * 0.25 / 1000 AS irradiation
FROM (SELECT *, time_bucket(INTERVAL '15 minutes', taken) AS window_start FROM stations)
GROUP BY window_start, site;

CREATE TABLE produced AS
SELECT window_start, window_start + INTERVAL '15 minutes' AS window_end, window_start + INTERVAL '15 minutes' - INTERVAL '1 microsecond' AS window_time,
       panel, count(*) AS readings, sum(watts) * 2 / 60 / 1000 AS kwh
FROM (SELECT *, time_bucket(INTERVAL '15 minutes', taken) AS window_start FROM readings_arrived)
WHERE luck >= 0.01 AND watts < 20000
  AND NOT (panel = 14 AND taken >= TIMESTAMP '2026-06-21 10:00:00' AND taken < TIMESTAMP '2026-06-21 13:00:00')
  AND (watermark IS NULL OR window_start + INTERVAL '15 minutes' > watermark)
GROUP BY window_start, panel;

CREATE TABLE quarters AS
SELECT s.window_start, s.window_end, s.window_time, c.customer, c.panel, s.irradiation * c.kwp * c.guaranteed AS promised,
       coalesce(p.kwh, 0) AS delivered, coalesce(p.readings, 0) AS readings, c.per_kwh
FROM sunshine AS s JOIN contracts AS c ON c.site = s.site
LEFT JOIN produced AS p ON p.window_end = s.window_end AND p.panel = c.panel;

-- Each row is in all windows of its day that end after it.
CREATE TABLE bills AS
SELECT window_start, window_end, window_end - INTERVAL '1 microsecond' AS window_time, customer, panel,
       sum(promised) AS promised, sum(delivered) AS delivered, greatest(0.97 * sum(promised) - sum(delivered), 0) * max(per_kwh) AS penalty
FROM (SELECT q.* EXCLUDE (window_start, window_end), date_trunc('day', q.window_time) AS window_start,
             date_trunc('day', q.window_time) + to_hours(h) AS window_end
      FROM quarters AS q, range(1, 25) AS hours (h))
WHERE window_time < window_end
GROUP BY window_start, window_end, customer, panel;

-- Runs of low quarters by "gaps and islands"
CREATE TABLE outages AS
SELECT panel, min(window_start) AS began, max(window_end) AS ended, count(*) AS quarters, count(*) FILTER (WHERE readings = 0) AS silent,
       sum(promised) - sum(delivered) AS missing, max(window_time) AS ts
FROM (SELECT *, row_number() OVER (PARTITION BY panel ORDER BY window_time)
             - row_number() OVER (PARTITION BY panel, delivered < 0.8 * promised ORDER BY window_time) AS island
      FROM quarters WHERE promised > 0.2)
WHERE delivered < 0.8 * promised
GROUP BY panel, island HAVING count(*) >= 3;

CREATE TABLE alerts AS
WITH low AS (
    SELECT *, sum(CASE WHEN delivered < 0.8 * promised THEN 1 ELSE 0 END)
              OVER (PARTITION BY panel ORDER BY window_time ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) AS low_quarters
    FROM quarters WHERE promised > 0.2),
decided AS (
    SELECT *, CASE WHEN low_quarters = 3 THEN 'firing' ELSE 'resolved' END AS state
    FROM low WHERE low_quarters = 3 OR delivered >= 0.8 * promised)
SELECT window_time, panel, customer, state, delivered, promised
FROM (SELECT *, lag(state) OVER (PARTITION BY panel ORDER BY window_time) AS before FROM decided)
WHERE state <> coalesce(before, 'resolved');
