-- The views of run.sql as DuckDB computes them from all rows of the streams. `n` is the order in which rows arrived.

CREATE TABLE arrived AS
SELECT *, max(ts) OVER (ORDER BY n ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) - INTERVAL '10 seconds' AS watermark FROM clicks;

CREATE TABLE on_time AS SELECT * FROM arrived WHERE watermark IS NULL OR ts >= watermark;

CREATE TABLE on_time_positions AS
SELECT * FROM (SELECT *, max(ts) OVER (ORDER BY n ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) - INTERVAL '10 seconds' AS watermark FROM positions)
WHERE watermark IS NULL OR ts >= watermark;

-- A late click still makes pairs with clicks from the watermark on: the pairs before it may have been returned.
CREATE TABLE pairs AS
SELECT b.ts, a.visitor, a.item, b.item AS next_item
FROM arrived AS a JOIN arrived AS b
ON a.visitor = b.visitor AND a.item <> b.item AND b.ts > a.ts AND b.ts <= a.ts + INTERVAL '5 minutes'
WHERE (a.watermark IS NULL OR b.ts >= a.watermark) AND (b.watermark IS NULL OR b.ts >= b.watermark);

CREATE TABLE followers AS
SELECT window_start, window_start + INTERVAL '1 hour' AS window_end, window_start + INTERVAL '1 hour' - INTERVAL '1 microsecond' AS window_time,
       item, next_item, count(*) AS times, count(DISTINCT visitor) AS visitors
FROM (SELECT p.*, time_bucket(INTERVAL '15 minutes', ts) - INTERVAL '15 minutes' * k AS window_start FROM pairs AS p, range(0, 4) AS hops (k))
GROUP BY window_start, item, next_item HAVING count(DISTINCT visitor) >= 3;

CREATE TABLE best AS
SELECT window_start, window_end, window_time, item, next_item, visitors
FROM followers
QUALIFY row_number() OVER (PARTITION BY window_end, item ORDER BY visitors DESC, times DESC, next_item) = 1;

CREATE TABLE offers AS
SELECT c.n, c.ts, c.visitor, c.item, r.next_item AS offer, r.visitors
FROM on_time AS c ASOF JOIN best AS r ON c.item = r.item AND c.ts >= r.window_time;

CREATE TABLE taken AS
SELECT o.ts, o.visitor, o.item, o.offer
FROM offers AS o
WHERE EXISTS (SELECT 1 FROM on_time AS c
              WHERE c.visitor = o.visitor AND c.item = o.offer AND c.ts > o.ts AND c.ts <= o.ts + INTERVAL '10 minutes');

CREATE MACRO so_far(t) AS TABLE
SELECT s.* EXCLUDE (k), window_start + INTERVAL '30 minutes' * k AS window_end
FROM (SELECT q.*, k, time_bucket(INTERVAL '3 hours', q.ts - INTERVAL '1 hour') + INTERVAL '1 hour' AS window_start FROM query_table(t) AS q, range(1, 7) AS steps (k)) AS s
WHERE s.ts < window_start + INTERVAL '30 minutes' * k;

CREATE TABLE offers_so_far AS
SELECT window_start, window_end, count(*) AS offers, count(DISTINCT visitor) AS visitors FROM so_far('offers') GROUP BY window_start, window_end;

CREATE TABLE taken_so_far AS
SELECT window_start, window_end, count(*) AS taken FROM so_far('taken') GROUP BY window_start, window_end;

CREATE TABLE success AS
SELECT o.window_start, o.window_end, o.offers, o.visitors, coalesce(t.taken, 0) AS taken, 100.0 * coalesce(t.taken, 0) / o.offers AS percent
FROM offers_so_far AS o LEFT JOIN taken_so_far AS t ON t.window_start = o.window_start AND t.window_end = o.window_end;

CREATE TABLE placed AS
SELECT c.n, c.ts, c.visitor, c.item,
       CASE WHEN c.ts <= p.ts + INTERVAL '10 minutes' THEN CAST(floor((p.lat - 52.45) / 0.02) AS BIGINT) END AS north,
       CASE WHEN c.ts <= p.ts + INTERVAL '10 minutes' THEN CAST(floor((p.lon - 13.30) / 0.03) AS BIGINT) END AS east
FROM on_time AS c ASOF LEFT JOIN on_time_positions AS p ON c.visitor = p.visitor AND c.ts >= p.ts;

CREATE TABLE nearby AS
SELECT window_start, window_start + INTERVAL '30 minutes' AS window_end, window_start + INTERVAL '30 minutes' - INTERVAL '1 microsecond' AS window_time,
       p.north, p.east, i.category, count(*) AS clicks, count(DISTINCT p.visitor) AS visitors
FROM (SELECT q.*, time_bucket(INTERVAL '10 minutes', ts) - INTERVAL '10 minutes' * k AS window_start
      FROM placed AS q, range(0, 3) AS hops (k) WHERE north IS NOT NULL) AS p
JOIN items AS i ON i.item = p.item
GROUP BY window_start, p.north, p.east, i.category;

CREATE TABLE showcases AS
SELECT t.window_start, t.window_end, t.north, t.east, t.category, t.clicks, t.visitors, s.shop
FROM (FROM nearby QUALIFY row_number() OVER (PARTITION BY window_end, north, east ORDER BY clicks DESC, visitors DESC, category) = 1) AS t
LEFT JOIN shops AS s ON s.north = t.north AND s.east = t.east AND s.category = t.category;
