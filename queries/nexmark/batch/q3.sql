WITH windowed AS (
  SELECT *, date_bin(INTERVAL '10 seconds', date_time) + INTERVAL '10 seconds' AS window_end FROM auction
)
SELECT person.name, person.city, person.state, windowed.id
FROM windowed, person
WHERE windowed.seller = person.id AND windowed.category = 10
  AND (person.state = 'or' OR person.state = 'id' OR person.state = 'ca')
  AND person.date_time >= windowed.window_end - INTERVAL '60 seconds' AND person.date_time < windowed.window_end
