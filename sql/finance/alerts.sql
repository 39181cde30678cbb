-- Orders and suspected cards as files for the systems that follow. Run it after run.sql, in the same program:
--   windrow run sql/finance/run.sql sql/finance/alerts.sql
CREATE SINK orders FROM rebalancing
WITH (connector = 'file', path = 'finance-alerts/orders', format = 'csv');

CREATE SINK suspected FROM tried_out
WITH (connector = 'file', path = 'finance-alerts/cards', format = 'ndjson');

WAIT FOR orders;
WAIT FOR suspected;

-- A card is blocked by a request; one that is sent again has the same Idempotency-Key.
-- CREATE SINK blocks FROM tried_out
-- WITH (connector = 'webhook', url = 'https://cards.example.com/block', secret = '…',
--       body = '{"card": ${card}, "ts": ${ts}, "reason": "${tries} payments of cents, then ${euros} EUR"}');
