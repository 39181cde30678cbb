-- What fit.py learns from: the features of each click, and whether a purchase followed. Run it after run.sql, in the same program.
COPY (
    SELECT f.clicks, f.products, f.carts, f.minutes,
           CASE WHEN f.device = 'phone' THEN 1 ELSE 0 END AS phone, CASE WHEN f.channel = 'mail' THEN 1 ELSE 0 END AS mail,
           o.n IS NOT NULL AS bought_later
    FROM features AS f LEFT JOIN (SELECT n FROM outcomes WHERE model = 'with_carts') AS o ON o.n = f.n
    WHERE f.bought = 0 AND f.clicks >= 3
) TO 'training.csv';
