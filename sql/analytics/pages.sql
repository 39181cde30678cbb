-- Web clicks: JSON that is pushed into a stream, a view per minute, and a second view over the first.

CREATE STREAM clicks (
    at      TIMESTAMP NOT NULL,
    payload VARCHAR,                               -- JSON as the browser sent it
    WATERMARK FOR at AS at - INTERVAL '5 seconds'
);                                                 -- no connector: rows come by INSERT

-- A name for a query: nothing runs.
CREATE VIEW visits AS
SELECT at, payload ->> 'page' AS page, payload ->> 'user' AS visitor
FROM clicks
WHERE (payload ->> 'bot') IS DISTINCT FROM 'true';

-- Runs from now on and stores finished windows. The window is a clause here; TUMBLE(…) is the other way to write it.
CREATE MATERIALIZED VIEW pages_per_minute AS
SELECT window_start, window_end, window_time, page, count(*) AS clicks, count(DISTINCT visitor) AS visitors
FROM visits WINDOW TUMBLING (SIZE 1 MINUTE)
GROUP BY page;

-- A window over a window: its event time is window_time.
CREATE MATERIALIZED VIEW pages_per_hour AS
SELECT window_start, window_end, page, sum(clicks) AS clicks, max(visitors) AS most_visitors_in_a_minute
FROM TUMBLE(pages_per_minute, window_time, INTERVAL '1 hour')
GROUP BY window_start, window_end, page;

INSERT INTO clicks VALUES
    (TIMESTAMP '2026-03-01 09:00:01', '{"page": "/", "user": "ada"}'),
    (TIMESTAMP '2026-03-01 09:00:04', '{"page": "/", "user": "bob"}'),
    (TIMESTAMP '2026-03-01 09:00:02', '{"page": "/docs", "user": "ada"}'),
    (TIMESTAMP '2026-03-01 09:00:30', '{"page": "/", "user": "crawler", "bot": "true"}'),
    (TIMESTAMP '2026-03-01 09:00:59', '{"page": "/docs", "user": "ada"}'),
    (TIMESTAMP '2026-03-01 09:01:20', '{"page": "/", "user": "eve"}'),
    (TIMESTAMP '2026-03-01 10:30:00', '{"page": "/docs", "user": "bob"}'),
    (TIMESTAMP '2026-03-01 11:30:00', '{"page": "/", "user": "ada"}');

-- Waits until the views have passed these times.
WAIT FOR pages_per_minute UNTIL TIMESTAMP '2026-03-01 11:00:00' TIMEOUT INTERVAL '10 seconds';
WAIT FOR pages_per_hour UNTIL TIMESTAMP '2026-03-01 11:00:00' TIMEOUT INTERVAL '10 seconds';

SELECT window_start, page, clicks, visitors FROM pages_per_minute ORDER BY window_start, page;
SELECT window_start, page, clicks, most_visitors_in_a_minute FROM pages_per_hour ORDER BY window_start, page;
