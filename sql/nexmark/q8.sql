-- Nexmark q8, monitor new users: who opened an auction within the ten seconds in which they signed up.

CREATE STREAM person (WATERMARK FOR date_time AS date_time - INTERVAL '1 second')
WITH ('connector' = 'nexmark', 'table' = 'person', 'events' = '20000', 'event_rate' = '100');

CREATE STREAM auction (WATERMARK FOR date_time AS date_time - INTERVAL '1 second')
WITH ('connector' = 'nexmark', 'table' = 'auction', 'events' = '20000', 'event_rate' = '100');

SELECT p.id, p.name, p.starttime
FROM (
    SELECT id, name, window_start AS starttime, window_end AS endtime
    FROM TABLE(TUMBLE(TABLE person, DESCRIPTOR(date_time), INTERVAL '10' SECOND))
    GROUP BY id, name, window_start, window_end
) AS p
JOIN (
    SELECT seller, window_start AS starttime, window_end AS endtime
    FROM TABLE(TUMBLE(TABLE auction, DESCRIPTOR(date_time), INTERVAL '10' SECOND))
    GROUP BY seller, window_start, window_end
) AS a
ON p.id = a.seller
AND p.starttime = a.starttime
AND p.endtime = a.endtime
EMIT FINAL;
