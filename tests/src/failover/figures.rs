//! The table: a row a fault, a column a system.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Fault;

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
        println!("  {:<32} {}", fault.label(), self.cell(fault));
    }
}

/// All systems.
#[derive(Debug, Default)]
pub(super) struct Table(Vec<Column>);

impl Table {
    pub(super) fn add(&mut self, column: Column) {
        self.0.push(column);
    }

    /// Prints it as Markdown, as docs/benchmarks.md has it.
    pub(super) fn print(&self) {
        let names: Vec<&str> = self.0.iter().map(|c| c.name.as_str()).collect();
        println!("\nnothing acknowledged for (median, least to most)\n");
        println!("| fault | goal | {} |", names.join(" | "));
        println!("|---|---|{}", "---|".repeat(names.len()));
        for fault in Fault::ALL {
            let cells: Vec<String> = self.0.iter().map(|c| c.cell(fault)).collect();
            println!("| {} | {:.1} s | {} |", fault.label(), fault.goal(), cells.join(" | "));
        }
        let lost: Vec<String> = self.0.iter().map(|c| c.lost.to_string()).collect();
        println!("| acknowledged rows lost | 0 | {} |", lost.join(" | "));
    }
}
