SELECT person.name, person.city, person.state, auction.id
FROM auction, person
WHERE auction.seller = person.id AND auction.category = 10
  AND (person.state = 'or' OR person.state = 'id' OR person.state = 'ca')
  AND person.date_time <= auction.date_time
