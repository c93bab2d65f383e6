//! The table: a row a fault, a column a system.

use std::collections::BTreeMap;
use std::time::Duration;

use super::fault::Fault;

/// What was measured of one system.
#[derive(Debug)]
pub(super) struct Column {
    name: String,
    gaps: BTreeMap<Fault, Vec<f64>>,
    failed: BTreeMap<Fault, usize>,
    /// Acknowledged rows that are missing.
    pub(super) lost: usize,
}

impl Column {
    pub(super) fn new(name: String) -> Column {
        Column {
            name,
            gaps: BTreeMap::new(),
            failed: BTreeMap::new(),
            lost: 0,
        }
    }

    pub(super) fn push(&mut self, fault: Fault, gap: Duration) {
        self.gaps.entry(fault).or_default().push(gap.as_secs_f64());
    }

    pub(super) fn failed(&mut self, fault: Fault) {
        *self.failed.entry(fault).or_default() += 1;
    }

    fn cell(&self, fault: Fault) -> String {
        let mut gaps = self.gaps.get(&fault).cloned().unwrap_or_default();
        gaps.sort_by(f64::total_cmp);
        let failed = match self.failed.get(&fault) {
            Some(n) => format!(", {n} failed"),
            None => String::new(),
        };
        match (gaps.first(), gaps.get(gaps.len() / 2), gaps.last()) {
            (Some(least), Some(median), Some(most)) => format!("{median:.2} s ({least:.2} to {most:.2}{failed})"),
            _ if failed.is_empty() => "-".to_owned(),
            _ => failed.trim_start_matches(", ").to_owned(),
        }
    }

    /// Says at once what was measured, for the whole takes an hour.
    pub(super) fn told(&self, fault: Fault) {
        println!("  {:<22} {:<52} {}", self.name, fault.label(), self.cell(fault));
    }
}

/// All systems.
#[derive(Debug, Default)]
pub(super) struct Table(Vec<Column>);

impl Table {
    /// Adds what was measured; to the column of that name if there is one.
    pub(super) fn add(&mut self, column: Column) {
        match self.0.iter_mut().find(|c| c.name == column.name) {
            Some(known) => {
                known.gaps.extend(column.gaps);
                known.failed.extend(column.failed);
                known.lost += column.lost;
            }
            None => self.0.push(column),
        }
    }

    /// Prints it as Markdown, as docs/benchmarks.md has it.
    pub(super) fn print(&self) {
        let names: Vec<&str> = self.0.iter().map(|c| c.name.as_str()).collect();
        println!("\nnothing acknowledged for (median, least to most)\n");
        println!("| fault | goal | {} |", names.join(" | "));
        println!("|---|---|{}", "---|".repeat(names.len()));
        let measured = |f: &Fault| {
            self.0
                .iter()
                .any(|c| c.gaps.contains_key(f) || c.failed.contains_key(f))
        };
        for fault in Fault::ALL.into_iter().filter(measured) {
            let cells: Vec<String> = self.0.iter().map(|c| c.cell(fault)).collect();
            let goal = fault.goal().map_or("-".to_owned(), |g| format!("{g:.1} s"));
            println!("| {} | {goal} | {} |", fault.label(), cells.join(" | "));
        }
        let lost: Vec<String> = self.0.iter().map(|c| c.lost.to_string()).collect();
        println!("| acknowledged rows lost | 0 | {} |", lost.join(" | "));
    }
}
