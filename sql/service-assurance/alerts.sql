-- Where the alerts go: a file per batch, one object a line. Run it after run.sql, in the same program:
--   windrow run sql/service-assurance/run.sql sql/service-assurance/alerts.sql
CREATE SINK panel_alerts FROM alerts
WITH (connector = 'file', path = 'service-assurance-alerts', format = 'ndjson');

WAIT FOR panel_alerts;

-- The same to a ticket system. A request that is sent again has the same Idempotency-Key.
-- CREATE SINK tickets FROM alerts
-- WITH (connector = 'webhook', url = 'https://tickets.example.com/hooks/solar', 'header.Authorization' = 'Bearer …',
--       body = '{"key": "panel-${panel}", "state": "${state}", "text": "panel ${panel} of ${customer}: ${delivered} of ${promised} kWh"}');
