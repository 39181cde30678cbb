-- Where alerts and visitors to help go: files, an object a line. Run it after run.sql, in the same program:
--   windrow run sql/analytics/run.sql sql/analytics/alerts.sql
CREATE SINK shop_alerts FROM alerts
WITH (connector = 'file', path = 'analytics-alerts/alerts', format = 'ndjson');

CREATE SINK to_help FROM likely
WITH (connector = 'file', path = 'analytics-alerts/likely', format = 'ndjson');

WAIT FOR shop_alerts;
WAIT FOR to_help;

-- The same as messages:
-- CREATE SINK shop_messages FROM alerts
-- WITH (connector = 'webhook', url = 'https://chat.example.com/hooks/shop',
--       body = '{"key": "checkout/${device}", "state": "${state}", "text": "${device}: ${purchases} purchases in half an hour, ${expected} expected"}');
