SELECT * FROM v_minutes [Range Unbounded]
