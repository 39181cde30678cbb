-- Nexmark q3, local item suggestion: who sells items of one category in three states.
-- The original joins without a bound of time and keeps all people for ever; here people sell within five minutes of signing up.

CREATE STREAM person (WATERMARK FOR date_time AS date_time - INTERVAL '1 second')
WITH ('connector' = 'nexmark', 'table' = 'person', 'events' = '20000', 'event_rate' = '100');

CREATE STREAM auction (WATERMARK FOR date_time AS date_time - INTERVAL '1 second')
WITH ('connector' = 'nexmark', 'table' = 'auction', 'events' = '20000', 'event_rate' = '100');

SELECT p.name, p.city, p.state, a.id, a.date_time
FROM auction AS a
JOIN person AS p
ON a.seller = p.id
AND a.date_time BETWEEN p.date_time AND p.date_time + INTERVAL '5 minutes'
WHERE a.category = 10 AND p.state IN ('or', 'id', 'ca')
EMIT FINAL;
