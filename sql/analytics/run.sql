-- A web shop on one day: visits are scored while they can still be helped, and an alert fires when fewer people buy than usual.
-- Run it from the root of the repository:   windrow run sql/analytics/run.sql

-- 1. Clicks. The generator stands in for the shop; keep ts, visitor, channel, device, kind and seconds. Visitors come one after the other, each for some
--    ten minutes, and some come again later; how much they want to buy differs. From 13:00 to 13:40 the checkout is broken on phones: who would buy gets an
--    error. One row in three hundred comes a quarter of an hour late, one in a thousand has no time.
CREATE STREAM clicks (
    n       BIGINT,
    sent    TIMESTAMP,
    a       DOUBLE,
    luck    DOUBLE,
    turn    DOUBLE,
    ts      TIMESTAMP GENERATED ALWAYS AS (CASE WHEN luck < 0.0033 THEN sent - INTERVAL '15 minutes' ELSE sent END),
    visitor BIGINT GENERATED ALWAYS AS ((n / 8 + CAST(floor(40 * a * a) AS BIGINT)) % 1500),
    channel VARCHAR GENERATED ALWAYS AS (CASE WHEN hash((n / 8 + CAST(floor(40 * a * a) AS BIGINT)) % 1500, 'channel') % 10 < 5 THEN 'search'
            WHEN hash((n / 8 + CAST(floor(40 * a * a) AS BIGINT)) % 1500, 'channel') % 10 < 8 THEN 'ads' ELSE 'mail' END),
    device  VARCHAR GENERATED ALWAYS AS (CASE WHEN hash((n / 8 + CAST(floor(40 * a * a) AS BIGINT)) % 1500, 'device') % 10 < 6 THEN 'phone' ELSE 'desktop' END),
    seconds BIGINT GENERATED ALWAYS AS (CAST(ceil(-25 * ln(1 - luck)) AS BIGINT)),
    kind    VARCHAR GENERATED ALWAYS AS (CASE
            WHEN turn < 0.10 * power(CAST(hash((n / 8 + CAST(floor(40 * a * a) AS BIGINT)) % 1500, 'wish') % 100 AS DOUBLE) / 100, 3)
            THEN CASE WHEN n >= 9000 AND n < 10200 AND hash((n / 8 + CAST(floor(40 * a * a) AS BIGINT)) % 1500, 'device') % 10 < 6 THEN 'error' ELSE 'buy' END
            WHEN turn < 0.02 + 0.38 * power(CAST(hash((n / 8 + CAST(floor(40 * a * a) AS BIGINT)) % 1500, 'wish') % 100 AS DOUBLE) / 100, 3) THEN 'cart'
            WHEN turn < 0.55 THEN 'product' ELSE 'page' END),
    WATERMARK FOR ts AS ts - INTERVAL '30 seconds'
) WITH (
    connector = 'datagen', rows = 18000, seed = 31, start = '2026-11-27T08:00:20Z', 'interval' = '2 seconds', disorder = '20 seconds',
    fields.n.kind = 'sequence', fields.sent.kind = 'event_time', fields.sent.null_share = 0.001
);

-- 2. The model: logistic regression, a row per coefficient. `fit.py` made them from another day. Two versions are compared.
CREATE EXTERNAL TABLE coefficients (model VARCHAR, feature VARCHAR, weight DOUBLE)
STORED AS CSV LOCATION 'sql/analytics/coefficients.csv' OPTIONS ('format.has_header' 'true');

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

-- 3. What is known of a visit at each of its clicks: the clicks of the visitor in the twenty minutes until then.
CREATE MATERIALIZED VIEW features AS
SELECT n, ts, visitor, channel, device, kind,
       count(*) OVER lately AS clicks,
       count(*) FILTER (WHERE kind = 'product') OVER lately AS products,
       count(*) FILTER (WHERE kind = 'cart') OVER lately AS carts,
       count(*) FILTER (WHERE kind = 'buy') OVER lately AS bought,
       sum(seconds) OVER lately / 60.0 AS minutes
FROM clicks
WINDOW lately AS (PARTITION BY visitor ORDER BY ts RANGE BETWEEN INTERVAL '20 minutes' PRECEDING AND CURRENT ROW);

-- 4. The score: the chance that the visit ends in a purchase, after each click of those who have not bought yet, by each model.
CREATE MATERIALIZED VIEW scores AS
SELECT f.n, f.ts, f.visitor, m.model,
       1 / (1 + exp(-(m.w_intercept + m.w_clicks * f.clicks + m.w_products * f.products + m.w_carts * f.carts + m.w_minutes * f.minutes
                      + CASE WHEN f.device = 'phone' THEN m.w_phone ELSE 0 END + CASE WHEN f.channel = 'mail' THEN m.w_mail ELSE 0 END))) AS score
FROM features AS f CROSS JOIN models AS m
WHERE f.bought = 0 AND f.clicks >= 3;

-- 5. Whom to help: the first time in an hour that the score of a visitor is above 0.25.
CREATE MATERIALIZED VIEW likely AS
SELECT ts, visitor, score FROM (
    SELECT ts, visitor, score,
           count(*) OVER (PARTITION BY visitor ORDER BY ts RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW) AS times
    FROM scores WHERE model = 'with_carts' AND score > 0.25)
WHERE times = 1;

-- 6. What became of it: a purchase within twenty minutes of the score?
CREATE MATERIALIZED VIEW outcomes AS
SELECT s.ts, s.model, s.score, s.visitor, s.n
FROM scores AS s
WHERE EXISTS (SELECT 1 FROM clicks AS c
              WHERE c.visitor = s.visitor AND c.kind = 'buy' AND c.ts > s.ts AND c.ts <= s.ts + INTERVAL '20 minutes');

-- 7. How well the models do, by the hour: what they expected, and how many bought.
CREATE MATERIALIZED VIEW expected AS
SELECT window_start, window_end, model, count(*) AS scores, avg(score) AS expected
FROM TUMBLE(scores, ts, INTERVAL '1 hour') GROUP BY window_start, window_end, model;

CREATE MATERIALIZED VIEW came_true AS
SELECT window_start, window_end, model, count(*) AS purchases, avg(score) AS score_of_buyers
FROM TUMBLE(outcomes, ts, INTERVAL '1 hour') GROUP BY window_start, window_end, model;

CREATE MATERIALIZED VIEW quality AS
SELECT e.window_start, e.window_end, e.model, e.scores, e.expected, coalesce(c.purchases, 0) / CAST(e.scores AS DOUBLE) AS actual, c.score_of_buyers
FROM expected AS e LEFT JOIN came_true AS c ON c.window_end = e.window_end AND c.model = e.model;

-- 8. Visits: a visitor who has not clicked for ten minutes has left.
CREATE MATERIALIZED VIEW visits AS
SELECT window_start, window_end, visitor, min(channel) AS channel, min(device) AS device,
       count(*) AS clicks, count(*) FILTER (WHERE kind = 'buy') AS purchases
FROM SESSION(clicks PARTITION BY visitor, ts, INTERVAL '10 minutes')
GROUP BY window_start, window_end, visitor;

-- 9. How many click through to a purchase: half an hour, every five minutes, by device.
CREATE MATERIALIZED VIEW conversion AS
SELECT window_start, window_end, window_time, device, count(*) AS clicks, count(*) FILTER (WHERE kind = 'buy') AS purchases,
       count(*) FILTER (WHERE kind = 'error') AS errors, count(*) FILTER (WHERE kind = 'buy') / CAST(count(*) AS DOUBLE) AS rate
FROM HOP(clicks, ts, INTERVAL '5 minutes', INTERVAL '30 minutes')
GROUP BY window_start, window_end, window_time, device;

-- 10. The alert: fewer purchases than the three hours before let expect, by more than chance explains (three standard deviations of a count). It is
--     resolved above one standard deviation; in between nothing changes.
CREATE MATERIALIZED VIEW alerts AS
SELECT window_time, device, state, purchases, expected FROM (
    SELECT window_time, device, state, purchases, expected, lag(state, 1) OVER (PARTITION BY device ORDER BY window_time) AS before
    FROM (
        SELECT window_time, device, purchases, expected,
               CASE WHEN purchases < expected - 3 * sqrt(expected) THEN 'firing' ELSE 'resolved' END AS state
        FROM (
            SELECT window_time, device, purchases,
                   clicks * avg(rate) OVER (PARTITION BY device ORDER BY window_time
                                            RANGE BETWEEN INTERVAL '210 minutes' PRECEDING AND INTERVAL '30 minutes' PRECEDING) AS expected,
                   count(*) OVER (PARTITION BY device ORDER BY window_time
                                  RANGE BETWEEN INTERVAL '210 minutes' PRECEDING AND INTERVAL '30 minutes' PRECEDING) AS windows
            FROM conversion)
        WHERE windows >= 12 AND (purchases < expected - 3 * sqrt(expected) OR purchases > expected - sqrt(expected))
    )
)
WHERE state <> coalesce(before, 'resolved');

WAIT FOR likely;
WAIT FOR quality;
WAIT FOR visits;
WAIT FOR alerts;

-- The alert
SELECT window_time, device, state, purchases, round(expected, 1) AS expected FROM alerts ORDER BY window_time, device;

-- The first ten visitors to help
SELECT ts, visitor, round(score, 3) AS score FROM likely ORDER BY ts, visitor LIMIT 10;

-- The models by the hour: what share of clicks they expect to end in a purchase, what share did, and how high they had scored these
SELECT window_start, model, scores, round(expected, 3) AS expected, round(actual, 3) AS actual, round(score_of_buyers, 3) AS score_of_buyers
FROM quality ORDER BY window_start, model LIMIT 8;

-- Visits by channel and device
SELECT channel, device, count(*) AS visits, round(avg(clicks), 1) AS clicks, round(100.0 * sum(CASE WHEN purchases > 0 THEN 1 ELSE 0 END) / count(*), 1) AS bought_percent
FROM visits GROUP BY channel, device ORDER BY channel, device;

-- Rows without a time, and rows that came too late for one of these
SELECT stream, reason, count(*) AS rows FROM windrow.bad_rows GROUP BY stream, reason;
SELECT * FROM windrow.ledger WHERE query IN ('features', 'conversion', 'visits');
