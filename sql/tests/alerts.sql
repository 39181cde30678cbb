-- What sql/alerts/threshold.sql reports: an incident begins at 80 °C and ends at 70 °C. Its sink writes into a folder of the test.
-- at 2026-01-01 00:00:00

\i sql/alerts/threshold.sql

INSERT INTO readings VALUES
    ('a', 60, '2026-01-01 00:00:00'), ('a', 81, '2026-01-01 00:00:01'), ('a', 79, '2026-01-01 00:00:02'),
    ('a', 85, '2026-01-01 00:00:03'), ('a', 69, '2026-01-01 00:00:04'), ('b', 20, '2026-01-01 00:01:00');

SELECT device, temperature, ts, state FROM overheated ORDER BY ts;
-- expect
-- a | 81.0 | 2026-01-01T00:00:01 | firing
-- a | 69.0 | 2026-01-01T00:00:04 | resolved

-- at 00:02:00
INSERT INTO readings VALUES ('b', 90, '2026-01-01 00:01:50'), ('a', 20, '2026-01-01 00:02:00');
SELECT device, state FROM overheated WHERE device = 'b';
-- expect
-- b | firing
