-- The three products of each category that sold best in 60 seconds, every ten.
SELECT window_end, category, place, product, sold
FROM (
  SELECT window_end, category, product, sold,
    ROW_NUMBER() OVER (PARTITION BY window_end, category ORDER BY sold DESC, product) AS place
  FROM (
    SELECT window_end, category, product, SUM(quantity) AS sold
    FROM sales [Range 60 seconds, Slide 10 seconds]
    GROUP BY window_end, category, product
  ) AS summed
) AS ranked
WHERE place <= 3;
