//! A query as parts that can be put together, left out one by one, and written down.

/// One SELECT. `@0` and `@1` stand for the windowed relations.
#[derive(Debug, Clone, Default)]
pub(crate) struct Select {
    pub(crate) is_distinct: bool,
    /// What it shows, in columns `c0`, `c1` and so on.
    pub(crate) items: Vec<String>,
    /// The first relation, then the joins.
    pub(crate) from: Vec<String>,
    /// Conditions, all of which hold.
    pub(crate) filters: Vec<String>,
    pub(crate) groups: Vec<String>,
    /// Whether the groups are a ROLLUP.
    pub(crate) is_rollup: bool,
    pub(crate) having: Option<String>,
}

/// The first rows in some order.
#[derive(Debug, Clone)]
pub(crate) struct Top {
    /// The numbers of the columns to order by, each with its direction.
    pub(crate) by: Vec<(usize, &'static str)>,
    pub(crate) rows: usize,
}

/// SELECTs under UNION ALL, of which the first rows may be taken.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    pub(crate) branches: Vec<Select>,
    pub(crate) top: Option<Top>,
}

/// A query in which `@0` and `@1` stand for the windowed relations, as an engine and as a batch take it.
#[derive(Debug, Clone)]
pub(crate) struct Texts {
    pub(crate) streaming: String,
    pub(crate) batch: String,
}

impl From<&str> for Texts {
    fn from(text: &str) -> Self {
        Self { streaming: text.to_owned(), batch: text.to_owned() }
    }
}

impl Select {
    fn sql(&self) -> String {
        let distinct = if self.is_distinct { "DISTINCT " } else { "" };
        let items = self.items.iter().enumerate().map(|(number, item)| format!("{item} AS c{number}"));
        let items = items.collect::<Vec<_>>().join(", ");
        let mut sql = format!("SELECT {distinct}{items} FROM {}", self.from.join(" "));
        if !self.filters.is_empty() {
            sql.push_str(&format!(" WHERE {}", self.filters.join(" AND ")));
        }
        if !self.groups.is_empty() {
            // Each in parentheses of its own: to ROLLUP, what begins with one is a list of groups.
            let (before, between, after) = if self.is_rollup { ("ROLLUP ((", "), (", "))") } else { ("", ", ", "") };
            sql.push_str(&format!(" GROUP BY {before}{}{after}", self.groups.join(between)));
        }
        if let Some(having) = &self.having {
            sql.push_str(&format!(" HAVING {having}"));
        }
        sql
    }

    /// The same with one part less, for each part that can be left out.
    fn parts_less(&self) -> Vec<Self> {
        let mut less = Vec::new();
        let mut add = |change: &dyn Fn(&mut Self)| {
            let mut select = self.clone();
            change(&mut select);
            less.push(select);
        };
        if self.is_distinct {
            add(&|select| select.is_distinct = false);
        }
        if self.is_rollup {
            add(&|select| select.is_rollup = false);
        }
        if self.having.is_some() {
            add(&|select| select.having = None);
        }
        for number in 1..self.from.len() {
            add(&|select| drop(select.from.remove(number)));
        }
        for number in 0..self.filters.len() {
            add(&|select| drop(select.filters.remove(number)));
        }
        for number in 0..self.groups.len() {
            add(&|select| drop(select.groups.remove(number)));
        }
        less
    }
}

impl Query {
    /// The query of one SELECT.
    pub(crate) const fn of(branches: Vec<Select>) -> Self {
        Self { branches, top: None }
    }

    /// The text for an engine, and that for a batch: its order names all columns, as the engine does to break ties.
    pub(crate) fn texts(&self) -> Texts {
        Texts { streaming: self.sql(false), batch: self.sql(true) }
    }

    fn sql(&self, complete: bool) -> String {
        let branches: Vec<_> = self.branches.iter().map(Select::sql).collect();
        let mut sql = branches.join(" UNION ALL ");
        if let Some(top) = &self.top {
            let mut order: Vec<_> = top.by.iter().map(|(column, direction)| format!("c{column}{direction}")).collect();
            if complete {
                let columns = 0..self.branches.first().map_or(0, |branch| branch.items.len());
                let missing = columns.filter(|column| top.by.iter().all(|(ordered, _)| ordered != column));
                order.extend(missing.map(|column| format!("c{column} NULLS FIRST")));
            }
            sql.push_str(&format!(" ORDER BY {} LIMIT {}", order.join(", "), top.rows));
        }
        sql
    }

    /// All queries with one part less; some of them are no queries.
    pub(crate) fn parts_less(&self) -> Vec<Self> {
        let mut less = Vec::new();
        if let Some(top) = &self.top {
            less.push(Self { top: None, ..self.clone() });
            let by = top.by.iter().skip(1).copied().collect::<Vec<_>>();
            if !by.is_empty() {
                less.push(Self { top: Some(Top { by, ..top.clone() }), ..self.clone() });
            }
        }
        for number in 0..self.branches.len() {
            if self.branches.len() > 1 {
                let mut query = self.clone();
                query.branches.remove(number);
                less.push(query);
            }
            for select in self.branches[number].parts_less() {
                let mut query = self.clone();
                query.branches[number] = select;
                less.push(query);
            }
        }
        let columns = self.branches.first().map_or(0, |branch| branch.items.len());
        for column in (0..columns).filter(|_| columns > 1 && self.top.is_none()) {
            let mut query = self.clone();
            for branch in &mut query.branches {
                branch.items.remove(column);
            }
            less.push(query);
        }
        less
    }
}
