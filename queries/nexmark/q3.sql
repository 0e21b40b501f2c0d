-- Query 3, local items: who sells in category 10 in three of the states?
-- Published over all people and auctions for ever; here an auction meets the people of the last minute, once: at the
-- end of the ten seconds it is in.
SELECT p.name, p.city, p.state, a.id
FROM auction [Range 10 seconds, Slide 10 seconds] AS a
JOIN person [Range 1 minute, Slide 10 seconds] AS p ON a.seller = p.id
WHERE a.category = 10 AND p.state IN ('or', 'id', 'ca');
