-- One row for each element.
SELECT ts, unnest(make_array(k, 'all')) AS k, v FROM t WHERE v > 9;
