-- An alert on a threshold with hysteresis: a device is too hot from 80 °C on, and not any more from 70 °C down. One message for each
-- incident, and one when it is over; what happens between the two thresholds changes nothing.

CREATE STREAM readings (device VARCHAR, temperature DOUBLE, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '5 seconds');

-- Only rows beyond a threshold decide. A message is due where the decision is another one than before.
CREATE MATERIALIZED VIEW overheated AS
SELECT device, temperature, ts, state
FROM (
    SELECT device, temperature, ts, state, lag(state, 1) OVER (PARTITION BY device ORDER BY ts) AS before
    FROM (
        SELECT device, temperature, ts, CASE WHEN temperature >= 80 THEN 'firing' ELSE 'resolved' END AS state
        FROM readings WHERE temperature >= 80 OR temperature <= 70
    )
)
WHERE state <> coalesce(before, 'resolved');

CREATE SINK overheated_alerts FROM overheated
WITH (connector = 'webhook', url = 'http://127.0.0.1:8080/alerts',
      body = '{"alert": "overheated", "state": "${state}", "key": "overheated/${device}",
               "text": "${device} has ${temperature} °C at ${ts}"}');
