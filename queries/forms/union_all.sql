-- Two streams, row by row.
SELECT ts, v FROM t WHERE v > 9 UNION ALL SELECT ts, price FROM q;
