SELECT window_end, szcode FROM STOCK
