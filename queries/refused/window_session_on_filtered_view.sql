SELECT COUNT(*) FROM v_dear [Session Gap 10 s Partition By szcode]
