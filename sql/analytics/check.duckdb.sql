-- The views of run.sql as DuckDB computes them from all rows of the streams. `n` is the order in which rows arrived; NULL times are bad rows.

CREATE TABLE arrived AS
SELECT *, max(ts) OVER (ORDER BY n ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) - INTERVAL '30 seconds' AS watermark
FROM clicks WHERE ts IS NOT NULL;

-- Rows that are not behind the watermark: what OVER sees
CREATE TABLE on_time AS SELECT * FROM arrived WHERE watermark IS NULL OR ts >= watermark;

CREATE TABLE models AS
SELECT model,
       max(weight) FILTER (WHERE feature = 'intercept') AS w_intercept,
       max(weight) FILTER (WHERE feature = 'clicks')    AS w_clicks,
       max(weight) FILTER (WHERE feature = 'products')  AS w_products,
       max(weight) FILTER (WHERE feature = 'carts')     AS w_carts,
       max(weight) FILTER (WHERE feature = 'minutes')   AS w_minutes,
       max(weight) FILTER (WHERE feature = 'phone')     AS w_phone,
       max(weight) FILTER (WHERE feature = 'mail')      AS w_mail
FROM coefficients GROUP BY model;

CREATE TABLE features AS
SELECT n, ts, visitor, channel, device, kind,
       count(*) OVER lately AS clicks,
       count(*) FILTER (WHERE kind = 'product') OVER lately AS products,
       count(*) FILTER (WHERE kind = 'cart') OVER lately AS carts,
       count(*) FILTER (WHERE kind = 'buy') OVER lately AS bought,
       sum(seconds) OVER lately / 60.0 AS minutes
FROM on_time
WINDOW lately AS (PARTITION BY visitor ORDER BY ts RANGE BETWEEN INTERVAL '20 minutes' PRECEDING AND CURRENT ROW);

CREATE TABLE scores AS
SELECT f.n, f.ts, f.visitor, m.model,
       1 / (1 + exp(-(m.w_intercept + m.w_clicks * f.clicks + m.w_products * f.products + m.w_carts * f.carts + m.w_minutes * f.minutes
                      + CASE WHEN f.device = 'phone' THEN m.w_phone ELSE 0 END + CASE WHEN f.channel = 'mail' THEN m.w_mail ELSE 0 END))) AS score
FROM features AS f CROSS JOIN models AS m
WHERE f.bought = 0 AND f.clicks >= 3;

CREATE TABLE likely AS
SELECT ts, visitor, score FROM (
    SELECT ts, visitor, score,
           count(*) OVER (PARTITION BY visitor ORDER BY ts RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW) AS times
    FROM scores WHERE model = 'with_carts' AND score > 0.25)
WHERE times = 1;

-- A purchase that came late counts as far as it is not behind the watermark when it can still match: see the interval join in docs/sql.md.
CREATE TABLE outcomes AS
SELECT s.ts, s.model, s.score, s.visitor, s.n
FROM scores AS s
WHERE EXISTS (SELECT 1 FROM on_time AS c
              WHERE c.visitor = s.visitor AND c.kind = 'buy' AND c.ts > s.ts AND c.ts <= s.ts + INTERVAL '20 minutes');

CREATE TABLE expected AS
SELECT window_start, window_start + INTERVAL '1 hour' AS window_end, model, count(*) AS scores, avg(score) AS expected
FROM (SELECT *, time_bucket(INTERVAL '1 hour', ts) AS window_start FROM scores) GROUP BY window_start, model;

CREATE TABLE came_true AS
SELECT window_start, window_start + INTERVAL '1 hour' AS window_end, model, count(*) AS purchases, avg(score) AS score_of_buyers
FROM (SELECT *, time_bucket(INTERVAL '1 hour', ts) AS window_start FROM outcomes) GROUP BY window_start, model;

CREATE TABLE quality AS
SELECT e.window_start, e.window_end, e.model, e.scores, e.expected, coalesce(c.purchases, 0) / CAST(e.scores AS DOUBLE) AS actual, c.score_of_buyers
FROM expected AS e LEFT JOIN came_true AS c ON c.window_end = e.window_end AND c.model = e.model;

-- A row behind the watermark is late for its session.
CREATE TABLE visits AS
SELECT min(ts) AS window_start, max(ts) + INTERVAL '10 minutes' AS window_end,
       visitor, min(channel) AS channel, min(device) AS device, count(*) AS clicks, count(*) FILTER (WHERE kind = 'buy') AS purchases
FROM (SELECT *, sum(new) OVER (PARTITION BY visitor ORDER BY ts, n) AS visit
      FROM (SELECT *, CASE WHEN ts <= lag(ts) OVER (PARTITION BY visitor ORDER BY ts, n) + INTERVAL '10 minutes' THEN 0 ELSE 1 END AS new FROM on_time))
GROUP BY visitor, visit;

-- A late row counts in those of its six windows that are still open.
CREATE TABLE conversion AS
SELECT window_start, window_start + INTERVAL '30 minutes' AS window_end, window_start + INTERVAL '30 minutes' - INTERVAL '1 microsecond' AS window_time, device,
       count(*) AS clicks, count(*) FILTER (WHERE kind = 'buy') AS purchases, count(*) FILTER (WHERE kind = 'error') AS errors,
       count(*) FILTER (WHERE kind = 'buy') / CAST(count(*) AS DOUBLE) AS rate
FROM (SELECT c.*, time_bucket(INTERVAL '5 minutes', ts) - INTERVAL '5 minutes' * k AS window_start FROM arrived AS c, range(0, 6) AS hops (k))
WHERE watermark IS NULL OR window_start + INTERVAL '30 minutes' > watermark
GROUP BY window_start, device;

CREATE TABLE alerts AS
WITH compared AS (
    SELECT window_time, device, purchases, clicks * avg(rate) OVER before AS expected, count(*) OVER before AS windows
    FROM conversion
    WINDOW before AS (PARTITION BY device ORDER BY window_time RANGE BETWEEN INTERVAL '210 minutes' PRECEDING AND INTERVAL '30 minutes' PRECEDING)),
decided AS (
    SELECT *, CASE WHEN purchases < expected - 3 * sqrt(expected) THEN 'firing' ELSE 'resolved' END AS state
    FROM compared WHERE windows >= 12 AND (purchases < expected - 3 * sqrt(expected) OR purchases > expected - sqrt(expected)))
SELECT window_time, device, state, purchases, expected
FROM (SELECT *, lag(state) OVER (PARTITION BY device ORDER BY window_time) AS before FROM decided)
WHERE state <> coalesce(before, 'resolved');
