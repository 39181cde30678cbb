-- Offers for the app, as files by the quarter of an hour at most. Run it after run.sql, in the same program:
--   windrow run sql/recommendation/run.sql sql/recommendation/alerts.sql
CREATE SINK app_offers FROM offers
WITH (connector = 'file', path = 'recommendation-alerts', format = 'parquet', roll_interval = '15 minutes');

WAIT FOR app_offers;

-- The same to the app's server, a hundred offers a request:
-- CREATE SINK offer_requests FROM offers
-- WITH (connector = 'webhook', url = 'https://app.example.com/offers', mode = 'batch', batch_rows = 100);
