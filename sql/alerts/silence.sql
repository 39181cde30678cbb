-- An alert on silence: a device has sent nothing for five minutes. One message for each silence, and one with the first row after it.
--
-- Time is that of the rows: a silence ends by the rows of other devices. Where all of them may fall silent at once, let time follow the
-- clock: WITH (connector = …, idle_timeout = '1 minute', when_idle = 'clock').

CREATE STREAM heartbeats (device VARCHAR, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '5 seconds');

-- A session of a device ends when five minutes have passed without a row.
CREATE MATERIALIZED VIEW silent AS
SELECT device, max(ts) AS last_seen, window_end
FROM SESSION(heartbeats PARTITION BY device, ts, INTERVAL '5 minutes')
GROUP BY window_start, window_end, device;

CREATE SINK silent_alerts FROM silent
WITH (connector = 'webhook', url = 'http://127.0.0.1:8080/alerts',
      body = '{"alert": "silent", "state": "firing", "key": "silent/${device}",
               "text": "nothing from ${device} since ${last_seen}"}');

CREATE MATERIALIZED VIEW heard_again AS
SELECT device, ts, last_seen
FROM (SELECT device, ts, lag(ts, 1) OVER (PARTITION BY device ORDER BY ts) AS last_seen FROM heartbeats)
WHERE ts > last_seen + INTERVAL '5 minutes';

CREATE SINK heard_again_alerts FROM heard_again
WITH (connector = 'webhook', url = 'http://127.0.0.1:8080/alerts',
      body = '{"alert": "silent", "state": "resolved", "key": "silent/${device}",
               "text": "${device} is back at ${ts}, after ${last_seen}"}');
