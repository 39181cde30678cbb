-- Functions and checks outlive a restart: windrow test sql/tests/functions.sql --shake

CREATE FUNCTION net(amount DOUBLE, rate DOUBLE) RETURNS DOUBLE AS 'amount / (1 + rate)';
CREATE FUNCTION size_of(amount DOUBLE) RETURNS VARCHAR AS $$ CASE WHEN amount < 20 THEN 'small' ELSE 'large' END $$;
CREATE FUNCTION net_size(amount DOUBLE) RETURNS VARCHAR AS 'size_of(net(amount, 0.25))';

CREATE STREAM orders (
    id BIGINT, amount DOUBLE CHECK (amount > 0), ts TIMESTAMP,
    net DOUBLE GENERATED ALWAYS AS (net(amount, 0.25)),
    WATERMARK FOR ts
);
CREATE MATERIALIZED VIEW sizes AS
SELECT window_end, net_size(amount) AS size, count(*) AS orders
FROM TUMBLE(orders, ts, INTERVAL '1 minute') GROUP BY window_start, window_end, net_size(amount);

INSERT INTO orders VALUES (1, 10, '2026-01-01 00:00:01'), (2, 24, '2026-01-01 00:00:02'), (3, 50, '2026-01-01 00:00:03');
INSERT INTO orders VALUES (4, 0, '2026-01-01 00:00:04');
-- expect error: violates check "orders_amount_check"

INSERT INTO orders VALUES (5, 100, '2026-01-01 00:02:00');
SELECT size, orders FROM sizes WHERE window_end = TIMESTAMP '2026-01-01 00:01:00' ORDER BY size;
-- expect
-- large | 1
-- small | 2

SELECT id, net FROM orders ORDER BY id;
-- expect
-- 1 | 8.0
-- 2 | 19.2
-- 3 | 40.0
-- 5 | 80.0

-- What is called stays.
DROP FUNCTION size_of;
-- expect error: "size_of" is called by "net_size"
DROP FUNCTION net;
-- expect error: is called by
