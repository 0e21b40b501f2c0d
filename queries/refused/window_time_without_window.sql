SELECT window_time, szcode FROM STOCK
