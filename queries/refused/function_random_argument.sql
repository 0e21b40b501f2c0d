CREATE FUNCTION square(x DOUBLE) RETURNS DOUBLE AS x * x;
SELECT square(random())
