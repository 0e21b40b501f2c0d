-- Rows with names from a table.
SELECT ts, name, v FROM t LEFT JOIN names ON t.k = names.k;
