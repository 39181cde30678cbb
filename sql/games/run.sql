-- An evening of a game: leaderboards, visits, winning streaks, and how many of those who install it come to buy.
-- Run it from the root of the repository:   windrow run sql/games/run.sql

-- 1. Rounds that were played, as game servers report them. The generator stands in for them; keep received, round, player, points and won.
--    240 players, a few of whom play most. Every 25th row is the round before it once more (the server had no answer and sent again), and four in
--    a thousand were held up for two minutes. Player 777 plays every 20 seconds, and never loses.
CREATE STREAM packets (
    n        BIGINT,
    sent     TIMESTAMP,
    luck     DOUBLE,
    received TIMESTAMP GENERATED ALWAYS AS (CASE WHEN luck < 0.004 THEN sent - INTERVAL '2 minutes' ELSE sent END),
    round    BIGINT GENERATED ALWAYS AS (n - n % 25 / 24),
    player   BIGINT GENERATED ALWAYS AS (CASE WHEN n % 40 = 7 THEN 777
             ELSE CAST(floor(240 * power(CAST(hash(n - n % 25 / 24, 'player') % 1000 AS DOUBLE) / 1000, 1.5)) AS BIGINT) END),
    points   BIGINT GENERATED ALWAYS AS (CASE WHEN n % 40 = 7 THEN 300
             ELSE CAST(floor(-120 * ln(1 - CAST(hash(n - n % 25 / 24, 'points') % 1000 AS DOUBLE) / 1000)) AS BIGINT) END),
    won      BOOLEAN GENERATED ALWAYS AS (n % 40 = 7 OR hash(n - n % 25 / 24, 'won') % 100 < 48),
    WATERMARK FOR received AS received - INTERVAL '5 seconds'
) WITH (
    connector = 'datagen', rows = 14390, seed = 5, start = '2026-10-03T18:00:03Z', 'interval' = '500 milliseconds', disorder = '3 seconds',
    fields.n.kind = 'sequence', fields.sent.kind = 'event_time'
);

-- 2. The way of new players: step 0 installs, 1 ends the tutorial, 2 wins for the first time, 3 buys. Some do a step twice, many never.
CREATE STREAM journeys (
    n      BIGINT,
    ts     TIMESTAMP,
    step   BIGINT GENERATED ALWAYS AS (n % 4),
    player BIGINT GENERATED ALWAYS AS (n / 4 - n % 4 * CAST(8 + hash(n, 'wait') % 20 AS BIGINT)),
    patience BIGINT GENERATED ALWAYS AS (CAST(hash(n / 4 - n % 4 * CAST(8 + hash(n, 'wait') % 20 AS BIGINT), 'patience') % 100 AS BIGINT)),
    WATERMARK FOR ts AS ts - INTERVAL '5 seconds'
) WITH (
    connector = 'datagen', rows = 2880, seed = 6, start = '2026-10-03T18:00:00Z', 'interval' = '2500 milliseconds',
    fields.n.kind = 'sequence', fields.ts.kind = 'event_time'
);

CREATE EXTERNAL TABLE steps (step BIGINT, name VARCHAR, patience BIGINT)
STORED AS CSV LOCATION 'sql/games/steps.csv' OPTIONS ('format.has_header' 'true');

-- 3. Each round once: the first row of a round within a minute. What is remembered ends after that minute.
CREATE MATERIALIZED VIEW rounds AS
SELECT round, received, player, points, won
FROM packets
QUALIFY first_value(n) OVER (PARTITION BY round ORDER BY received RANGE BETWEEN INTERVAL '1 minute' PRECEDING AND CURRENT ROW) = n;

-- 4. The leaderboard of ten minutes, and the three best of it
CREATE MATERIALIZED VIEW boards AS
SELECT window_start, window_end, window_time, player, count(*) AS rounds, sum(points) AS points, max(points) AS best
FROM TUMBLE(rounds, received, INTERVAL '10 minutes')
GROUP BY window_start, window_end, window_time, player;

CREATE MATERIALIZED VIEW leaders AS
SELECT window_start, window_end, rank() OVER (PARTITION BY window_end ORDER BY points DESC) AS place, player, points, rounds
FROM boards
QUALIFY rank() OVER (PARTITION BY window_end ORDER BY points DESC) <= 3;

-- 5. The evening so far, every half hour
CREATE MATERIALIZED VIEW evening AS
SELECT window_start, window_end, player, count(*) AS rounds, sum(points) AS points
FROM CUMULATE(rounds, received, INTERVAL '30 minutes', INTERVAL '2 hours')
GROUP BY window_start, window_end, player;

-- 6. Visits: a player who has not played for ten minutes has left.
CREATE MATERIALIZED VIEW visits AS
SELECT window_start, window_end, player, count(*) AS rounds, sum(points) AS points,
       round(date_part('epoch', max(received) - min(received)) / 60, 2) AS minutes
FROM SESSION(rounds PARTITION BY player, received, INTERVAL '10 minutes')
GROUP BY window_start, window_end, player;

-- 7. Nobody wins eight times in a row so often.
CREATE MATERIALIZED VIEW streaks AS
SELECT player, began, ended, points
FROM rounds MATCH_RECOGNIZE (
    PARTITION BY player ORDER BY received, round
    MEASURES FIRST(win.received) AS began, LAST(win.received) AS ended, sum(win.points) AS points
    ONE ROW PER MATCH AFTER MATCH SKIP PAST LAST ROW
    PATTERN (win{8}) WITHIN INTERVAL '3' HOUR
    DEFINE win AS win.won
);

-- 8. The funnel. Players differ in patience, from 0 to 99, and each step of the table asks for some. Of a step that is done twice the first one counts; it
--    counts if it follows the installation within five, ten and fifteen minutes.
CREATE MATERIALIZED VIEW first_steps AS
SELECT player, step, name, ts
FROM (
    SELECT j.player, j.step, s.name, j.ts
    FROM journeys AS j JOIN steps AS s ON s.step = j.step
    WHERE j.player >= 0 AND j.patience >= s.patience
)
QUALIFY row_number() OVER (PARTITION BY player, step ORDER BY ts) = 1;

CREATE MATERIALIZED VIEW funnel AS
SELECT i.player, i.ts AS installed, t.ts AS tutorial, w.ts AS won, b.ts AS bought
FROM (SELECT player, ts FROM first_steps WHERE step = 0) AS i
LEFT JOIN (SELECT player, ts FROM first_steps WHERE step = 1) AS t
    ON t.player = i.player AND t.ts >= i.ts AND t.ts <= i.ts + INTERVAL '5 minutes'
LEFT JOIN (SELECT player, ts FROM first_steps WHERE step = 2) AS w
    ON w.player = i.player AND w.ts >= i.ts AND w.ts <= i.ts + INTERVAL '10 minutes'
LEFT JOIN (SELECT player, ts FROM first_steps WHERE step = 3) AS b
    ON b.player = i.player AND b.ts >= i.ts AND b.ts <= i.ts + INTERVAL '15 minutes';

CREATE MATERIALIZED VIEW funnel_counts AS
SELECT window_start, window_end, count(*) AS installed, count(tutorial) AS tutorial,
       count(won) FILTER (WHERE tutorial <= won) AS won,
       count(bought) FILTER (WHERE tutorial <= won AND won <= bought) AS bought
FROM TUMBLE(funnel, installed, INTERVAL '30 minutes')
GROUP BY window_start, window_end;

WAIT FOR leaders;
WAIT FOR evening;
WAIT FOR visits;
WAIT FOR streaks;
WAIT FOR funnel_counts;

-- The three best of each ten minutes, for the first half hour
SELECT window_start, place, player, points, rounds FROM leaders
WHERE window_start < TIMESTAMP '2026-10-03 18:30:00' ORDER BY window_start, place, player;

-- The five best of the evening
SELECT player, rounds, points FROM evening WHERE window_end = TIMESTAMP '2026-10-03 20:00:00' ORDER BY points DESC, player LIMIT 5;

-- How long people stay
SELECT CASE WHEN minutes < 5 THEN 'below 5 minutes' WHEN minutes < 30 THEN 'below half an hour' ELSE 'longer' END AS stayed,
       count(*) AS visits, round(avg(rounds), 1) AS rounds
FROM visits GROUP BY 1 ORDER BY 2 DESC;

-- Who wins too often
SELECT player, count(*) AS streaks, min(began) AS first_began FROM streaks GROUP BY player ORDER BY streaks DESC, player LIMIT 3;

-- Of those who installed the game in each half hour, how many have come how far
SELECT window_start, installed, tutorial, won, bought FROM funnel_counts ORDER BY window_start;

-- Rounds that were held up for two minutes are late, and the ledger has them.
SELECT * FROM windrow.ledger WHERE query IN ('rounds', 'boards', 'first_steps');
