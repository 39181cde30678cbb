-- Messages as files. Run it after run.sql, in the same program:
--   windrow run sql/risk/run.sql sql/risk/alerts.sql
CREATE SINK limit_alerts FROM alerts
WITH (connector = 'file', path = 'risk-alerts', format = 'ndjson');

WAIT FOR limit_alerts;

-- The same as messages:
-- CREATE SINK limit_messages FROM alerts
-- WITH (connector = 'webhook', url = 'https://chat.example.com/hooks/limits',
--       body = '{"key": "limit/${counterparty}", "state": "${state}", "text": "${counterparty}: ${exposure} of ${up_to}"}');
