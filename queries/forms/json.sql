-- Fields of JSON text.
SELECT document ->> 'k' AS k, CAST(document ->> 'v' AS BIGINT) AS v
FROM (SELECT concat('{"k": "', k, '", "v": ', CAST(v AS VARCHAR), '}') AS document FROM t);
