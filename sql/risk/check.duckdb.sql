-- The views of run.sql as DuckDB computes them from all rows of the streams. `n` is the order in which rows arrived.

CREATE TABLE booked AS
SELECT deal, ts, counterparty, amount
FROM (SELECT *, max(ts) OVER (ORDER BY n ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) - INTERVAL '1 minute' AS watermark FROM deals)
WHERE watermark IS NULL OR ts >= watermark
QUALIFY first_value(n) OVER (PARTITION BY deal ORDER BY ts RANGE BETWEEN INTERVAL '10 minutes' PRECEDING AND CURRENT ROW) = n;

CREATE TABLE settled AS SELECT deal, ts FROM settlements WHERE NOT fails;

CREATE TABLE lifecycles AS
SELECT b.deal, b.counterparty, b.amount, b.ts AS booked_at, s.ts AS settled_at
FROM booked AS b LEFT JOIN settled AS s ON s.deal = b.deal AND s.ts BETWEEN b.ts AND b.ts + INTERVAL '3 hours';

CREATE TABLE failed AS
SELECT window_start, window_start + INTERVAL '1 hour' AS window_end, counterparty, count(*) AS deals, count(*) - count(settled_at) AS failed,
       sum(amount) FILTER (WHERE settled_at IS NULL) AS amount
FROM (SELECT *, time_bucket(INTERVAL '1 hour', booked_at) AS window_start FROM lifecycles)
GROUP BY window_start, counterparty;

CREATE TABLE movements AS
SELECT deal, booked_at AS ts, counterparty, amount FROM lifecycles
UNION ALL
SELECT deal, settled_at, counterparty, -amount FROM lifecycles WHERE settled_at IS NOT NULL;

CREATE TABLE exposures AS
SELECT deal, ts, counterparty, amount,
       sum(amount) OVER (PARTITION BY counterparty ORDER BY ts, deal, amount ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS exposure
FROM movements;

CREATE TABLE used AS
SELECT e.deal, e.ts, e.counterparty, e.exposure, l.up_to, CAST(e.exposure AS DOUBLE) / CAST(l.up_to AS DOUBLE) AS share
FROM exposures AS e ASOF JOIN limits AS l ON l.counterparty = e.counterparty AND e.ts >= l.ts;

-- Runs of rows above the limit by "gaps and islands", and the row after each
CREATE TABLE breaches AS
WITH numbered AS (
    SELECT *, share > 1 AS above, row_number() OVER (PARTITION BY counterparty ORDER BY ts, deal, exposure) AS number,
           lead(ts) OVER (PARTITION BY counterparty ORDER BY ts, deal, exposure) AS next_at
    FROM used),
runs AS (
    SELECT *, number - row_number() OVER (PARTITION BY counterparty, above ORDER BY number) AS run FROM numbered)
SELECT counterparty, min(ts) AS began, arg_max_null(next_at, number) AS ended, max(exposure) AS peak, count(*) AS movements
FROM runs WHERE above GROUP BY counterparty, run;

CREATE TABLE alerts AS
WITH decided AS (
    SELECT *, CASE WHEN share > 1 THEN 'firing' ELSE 'resolved' END AS state FROM used WHERE share > 1 OR share < 0.9)
SELECT ts, counterparty, state, exposure, up_to
FROM (SELECT *, lag(state) OVER (PARTITION BY counterparty ORDER BY ts, deal, exposure) AS before FROM decided)
WHERE state <> coalesce(before, 'resolved');

CREATE TABLE quarters AS
SELECT window_start, window_start + INTERVAL '15 minutes' AS window_end, window_start + INTERVAL '15 minutes' - INTERVAL '1 microsecond' AS window_time,
       counterparty, last(exposure ORDER BY ts, deal, exposure) AS exposure, max(exposure) AS peak
FROM (SELECT *, time_bucket(INTERVAL '15 minutes', ts) AS window_start FROM used)
GROUP BY window_start, counterparty;

-- Every quarter from the first one of a counterparty; a gap takes the value before it, for two hours at most.
CREATE TABLE losses AS
WITH ends AS (
    SELECT counterparty, unnest(generate_series(min(window_end), max(window_end) + INTERVAL '2 hours', INTERVAL '15 minutes')) AS window_end
    FROM quarters GROUP BY counterparty),
filled AS (
    SELECT e.counterparty, e.window_end, last_value(q.exposure IGNORE NULLS) OVER before AS exposure, last_value(q.window_end IGNORE NULLS) OVER before AS known_at
    FROM ends AS e LEFT JOIN quarters AS q ON q.counterparty = e.counterparty AND q.window_end = e.window_end
    WINDOW before AS (PARTITION BY e.counterparty ORDER BY e.window_end))
SELECT f.window_end - INTERVAL '1 microsecond' AS window_time, f.window_end, f.counterparty, c.rating, f.exposure,
       CAST(f.exposure AS DOUBLE) * c.pd * c.lgd AS expected_loss
FROM filled AS f JOIN counterparties AS c ON c.counterparty = f.counterparty
WHERE f.window_end <= f.known_at + INTERVAL '2 hours';

CREATE TABLE concentration AS
WITH shares AS (
    SELECT window_end, exposure, expected_loss, CAST(exposure AS DOUBLE) / sum(CAST(exposure AS DOUBLE)) OVER (PARTITION BY window_end) AS share
    FROM losses WHERE exposure > 0)
SELECT window_end, count(*) AS names, sum(exposure) AS exposure, sum(expected_loss) AS expected_loss, sum(share * share) AS herfindahl, max(share) AS largest
FROM shares GROUP BY window_end;
