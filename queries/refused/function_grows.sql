CREATE FUNCTION d(x DOUBLE) RETURNS DOUBLE AS x * x + x;
SELECT d(d(d(d(d(d(d(d(lastPrice)))))))) FROM STOCK
