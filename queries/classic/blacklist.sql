-- The blacklist filter: the visits of those who are not on a list; of the nameless too, who cannot be on it.
SELECT visits.ts, visits.name, visits.page
FROM visits LEFT ANTI JOIN blacklist ON visits.name = blacklist.name;
