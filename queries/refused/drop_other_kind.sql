DROP VIEW stock
