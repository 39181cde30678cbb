-- Orders for the system that buys. Run it after run.sql, in the same program:
--   windrow run sql/iot/run.sql sql/iot/alerts.sql
CREATE SINK purchase FROM orders
WITH (connector = 'file', path = 'iot-alerts', format = 'csv');

WAIT FOR purchase;

-- The same as requests: the supplier is not asked twice, because a request that is sent again has the same Idempotency-Key.
-- CREATE SINK purchase_requests AS SELECT part, supplier, pump, window_time FROM orders WHERE ordered EMIT CHANGES
-- WITH (connector = 'webhook', url = 'https://erp.example.com/orders', 'header.Authorization' = 'Bearer …',
--       body = '{"part": ${part}, "supplier": ${supplier}, "quantity": 1, "reason": "pump ${pump}"}');
