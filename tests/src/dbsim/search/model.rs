//! The abstract world: three instances, the record, what the master was told. Small, and equal states are equal values.

use std::collections::HashMap;
use std::rc::Rc;

use ha_core::database::local::Report;
use ha_core::database::{GroupSpec, GroupState, Timing, Weaken};

use super::Bounds;
use crate::dbsim::postgres::Names;
use crate::dbsim::wal::{Pos, Tree};

/// How many instances.
pub const COUNT: usize = 3;

/// A server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Server {
    /// Not a process of it.
    #[default]
    Stopped,
    /// In recovery.
    Standby,
    /// Reads and writes.
    Primary,
}

/// A walsender to one standby.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sender {
    /// Epoch in the standby's name.
    pub epoch: u64,
    /// What it has read.
    pub names: Names,
    /// What the standby has confirmed.
    pub confirmed: u64,
}

/// An instance and its agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Instance {
    /// The server.
    pub server: Server,
    /// Its directory has a database.
    pub filled: bool,
    /// End of its log.
    pub end: Option<Pos>,
    /// `standby.signal`.
    pub signal: bool,
    /// It ran as a primary last.
    pub was_primary: bool,
    /// Starts.
    pub starts: u8,
    /// Names in force.
    pub names: Names,
    /// Upstream in force.
    pub follow: Option<(usize, u64)>,
    /// The receiver's upstream.
    pub receiver: Option<(usize, u64)>,
    /// Its replay stands still, so that a receiver outlives a reload.
    pub stuck: bool,
    /// Marks.
    pub refused: u64,
    /// Marks.
    pub promotion: Option<u64>,
    /// An order to rebuild it was carried out.
    pub rebuilt: bool,
    /// Newest timeline it knows.
    pub newest: u32,
    /// The record as last read.
    pub read: Option<u32>,
    /// Walsenders by standby.
    pub senders: [Option<Sender>; COUNT],
    /// Where the log was when names and walsenders were first seen as they are, and how they were.
    pub seen: Option<(u64, u64)>,
    /// End of crash recovery.
    pub recovered: Option<u64>,
    /// Branch made.
    pub promoted: Option<u16>,
    /// Confirmed by enough standbys.
    pub confirmed: u64,
    /// Its daemon says nothing and does nothing.
    pub silent: bool,
    /// Its lease is over, and everybody may know.
    pub absent: bool,
}

/// Everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct State {
    /// The instances.
    pub all: [Instance; COUNT],
    /// The record's number.
    pub record: u32,
    /// Logs.
    pub tree: Tree,
    /// The newest acknowledged commit.
    pub covered: Option<Pos>,
    /// The reports that the master has, by number.
    pub told: [Option<u32>; COUNT],
    /// What may still happen.
    pub commits: u8,
    /// What may still happen.
    pub crashes: u8,
    /// What may still happen.
    pub silences: u8,
    /// What may still happen.
    pub stucks: u8,
    /// What may still happen.
    pub demands: u8,
    /// Decisions that may still be made as if every limit had passed.
    pub longs: u8,
    /// An operator asked for a failover.
    pub demanded: bool,
    /// Epochs up to here.
    pub last_epoch: u64,
}

impl State {
    /// The same, with so much that may happen from now on.
    pub fn with(mut self, bounds: Bounds, model: &Model) -> Self {
        self.commits = bounds.commits;
        self.crashes = bounds.crashes;
        self.silences = bounds.silences;
        self.stucks = bounds.stuck;
        self.demands = bounds.demands;
        self.longs = bounds.longs;
        self.last_epoch = model.record(self.record).epoch + bounds.epochs;
        self
    }
}

/// What is the same in all states: settings, and values that states know by number.
pub struct Model {
    /// Left out.
    pub weaken: Weaken,
    /// The group.
    pub spec: GroupSpec,
    /// The times.
    pub timing: Timing,
    /// Names of the nodes.
    pub names: Vec<String>,
    records: Vec<Rc<GroupState>>,
    record_numbers: HashMap<String, u32>,
    reports: Vec<Rc<Report>>,
    report_numbers: HashMap<String, u32>,
}

impl Model {
    /// A model of a group of three.
    pub fn new(weaken: Weaken) -> Self {
        let names: Vec<String> = (1..=COUNT).map(|n| format!("n{n}")).collect();
        let mut model = Self {
            weaken,
            spec: GroupSpec::on(names.iter().map(String::as_str)),
            timing: Timing::default(),
            names,
            records: Vec::new(),
            record_numbers: HashMap::new(),
            reports: Vec::new(),
            report_numbers: HashMap::new(),
        };
        model.spec.limits.flap_count = u32::MAX;
        model.number(GroupState::default());
        model
    }

    /// A record by number.
    pub fn record(&self, number: u32) -> &Rc<GroupState> {
        &self.records[number as usize]
    }

    /// A report by number.
    pub fn report(&self, number: u32) -> &Rc<Report> {
        &self.reports[number as usize]
    }

    /// The number of a record. What is kept of it for people alone makes no other record of it.
    pub fn number(&mut self, mut record: GroupState) -> u32 {
        record.last = None;
        record.reason.clear();
        for instance in record.instances.values_mut() {
            instance.failures_ms.clear();
            if let Some(rebuild) = &mut instance.rebuild {
                rebuild.why.clear();
            }
        }
        let text = format!("{record:?}");
        let next = u32::try_from(self.records.len()).unwrap_or(u32::MAX);
        *self.record_numbers.entry(text).or_insert_with(|| {
            self.records.push(Rc::new(record));
            next
        })
    }

    /// The number of a report.
    pub fn number_report(&mut self, mut report: Report) -> u32 {
        report.waits.clear();
        report.failed = None;
        // The master goes by the epoch.
        report.revision = 0;
        let text = format!("{report:?}");
        let next = u32::try_from(self.reports.len()).unwrap_or(u32::MAX);
        *self.report_numbers.entry(text).or_insert_with(|| {
            self.reports.push(Rc::new(report));
            next
        })
    }

    /// Index of a node.
    pub fn node(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|n| n == name)
    }
}
