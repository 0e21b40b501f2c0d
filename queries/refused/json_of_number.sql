SELECT lastPrice ->> 'a' FROM STOCK
