-- An alert on an unusual value: the average of a minute is more than three standard deviations above what the minutes of the last hour were.
-- One message for each incident, and one when it is over.

CREATE STREAM requests (service VARCHAR, millis DOUBLE, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '5 seconds');

CREATE MATERIALIZED VIEW per_minute AS
SELECT window_time, service, count(*) AS requests, avg(millis) AS millis
FROM TUMBLE(requests, ts, INTERVAL '1 minute') GROUP BY window_start, window_end, window_time, service;

-- The hour before each minute, without the minute itself.
CREATE MATERIALIZED VIEW compared AS
SELECT window_time, service, millis,
       avg(millis) OVER hour_before AS usual,
       stddev(millis) OVER hour_before AS deviation,
       count(*) OVER hour_before AS minutes
FROM per_minute
WINDOW hour_before AS (PARTITION BY service ORDER BY window_time
                       RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND INTERVAL '1 minute' PRECEDING);

CREATE MATERIALIZED VIEW slow AS
SELECT window_time, service, millis, usual, state
FROM (
    SELECT window_time, service, millis, usual, state,
           lag(state, 1) OVER (PARTITION BY service ORDER BY window_time) AS before
    FROM (
        SELECT window_time, service, millis, usual,
               CASE WHEN minutes >= 10 AND millis > usual + 3 * deviation THEN 'firing' ELSE 'resolved' END AS state
        FROM compared
    )
)
WHERE state <> coalesce(before, 'resolved');

CREATE SINK slow_alerts FROM slow
WITH (connector = 'webhook', url = 'http://127.0.0.1:8080/alerts',
      body = '{"alert": "slow", "state": "${state}", "key": "slow/${service}",
               "text": "${service} takes ${millis} ms, usually ${usual} ms"}');
