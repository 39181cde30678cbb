-- The views of run.sql as DuckDB computes them from all rows of the streams. `n` is the order in which rows arrived.

-- Rows behind the watermark (five seconds less than the latest row before them) are late for OVER.
CREATE TABLE rounds AS
SELECT round, received, player, points, won
FROM (SELECT *, max(received) OVER (ORDER BY n ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) - INTERVAL '5 seconds' AS watermark FROM packets)
WHERE watermark IS NULL OR received >= watermark
QUALIFY first_value(n) OVER (PARTITION BY round ORDER BY received RANGE BETWEEN INTERVAL '1 minute' PRECEDING AND CURRENT ROW) = n;

CREATE TABLE boards AS
SELECT window_start, window_start + INTERVAL '10 minutes' AS window_end, window_start + INTERVAL '10 minutes' - INTERVAL '1 microsecond' AS window_time,
       player, count(*) AS rounds, sum(points) AS points, max(points) AS best
FROM (SELECT *, time_bucket(INTERVAL '10 minutes', received) AS window_start FROM rounds)
GROUP BY window_start, player;

CREATE TABLE leaders AS
SELECT window_start, window_end, rank() OVER (PARTITION BY window_end ORDER BY points DESC) AS place, player, points, rounds
FROM boards QUALIFY place <= 3;

CREATE TABLE evening AS
SELECT window_start, window_end, player, count(*) AS rounds, sum(points) AS points
FROM (SELECT r.*, time_bucket(INTERVAL '2 hours', received) AS window_start,
             time_bucket(INTERVAL '2 hours', received) + INTERVAL '30 minutes' * h AS window_end
      FROM rounds AS r, range(1, 5) AS halves (h))
WHERE received < window_end
GROUP BY window_start, window_end, player;

CREATE TABLE visits AS
SELECT min(received) AS window_start, max(received) + INTERVAL '10 minutes' AS window_end, player, count(*) AS rounds, sum(points) AS points,
       round(epoch(max(received) - min(received)) / 60, 2) AS minutes
FROM (SELECT *, sum(new) OVER (PARTITION BY player ORDER BY received, round) AS visit
      FROM (SELECT *, CASE WHEN received <= lag(received) OVER (PARTITION BY player ORDER BY received, round) + INTERVAL '10 minutes' THEN 0 ELSE 1 END AS new
            FROM rounds))
GROUP BY player, visit;

-- Every eighth win of a run of wins ends a streak.
CREATE TABLE streaks AS
WITH runs AS (
    SELECT *, row_number() OVER (PARTITION BY player ORDER BY received, round)
              - row_number() OVER (PARTITION BY player, won ORDER BY received, round) AS run
    FROM rounds),
wins AS (
    SELECT *, (row_number() OVER (PARTITION BY player, run ORDER BY received, round) - 1) // 8 AS eight FROM runs WHERE won)
SELECT player, min(received) AS began, max(received) AS ended, sum(points) AS points
FROM wins GROUP BY player, run, eight HAVING count(*) = 8;

CREATE TABLE first_steps AS
SELECT j.player, j.step, s.name, j.ts
FROM journeys AS j JOIN steps AS s ON s.step = j.step
WHERE j.player >= 0 AND j.patience >= s.patience
QUALIFY row_number() OVER (PARTITION BY j.player, j.step ORDER BY j.ts) = 1;

CREATE TABLE funnel AS
SELECT i.player, i.ts AS installed, t.ts AS tutorial, w.ts AS won, b.ts AS bought
FROM (FROM first_steps WHERE step = 0) AS i
LEFT JOIN (FROM first_steps WHERE step = 1) AS t ON t.player = i.player AND t.ts BETWEEN i.ts AND i.ts + INTERVAL '5 minutes'
LEFT JOIN (FROM first_steps WHERE step = 2) AS w ON w.player = i.player AND w.ts BETWEEN i.ts AND i.ts + INTERVAL '10 minutes'
LEFT JOIN (FROM first_steps WHERE step = 3) AS b ON b.player = i.player AND b.ts BETWEEN i.ts AND i.ts + INTERVAL '15 minutes';

CREATE TABLE funnel_counts AS
SELECT window_start, window_start + INTERVAL '30 minutes' AS window_end, count(*) AS installed, count(tutorial) AS tutorial,
       count(won) FILTER (WHERE tutorial <= won) AS won,
       count(bought) FILTER (WHERE tutorial <= won AND won <= bought) AS bought
FROM (SELECT *, time_bucket(INTERVAL '30 minutes', installed) AS window_start FROM funnel)
GROUP BY window_start;
