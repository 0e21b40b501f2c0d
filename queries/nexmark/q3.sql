-- Query 3, local items: who sells in category 10 in three of the states?
-- Published as a join of all people and auctions for ever; here each auction meets, when it opens, everyone who has
-- come before.
SELECT p.name, p.city, p.state, a.id
FROM auction [Now] AS a
JOIN person [Partition By id Rows 1] AS p ON a.seller = p.id
WHERE a.category = 10 AND p.state IN ('or', 'id', 'ca');
