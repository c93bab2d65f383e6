//! What reaches the screen. Data goes to stdout through [`Out`], in the format that was asked for; everything else goes
//! to stderr through [`notes::Notes`]. Nothing else in this crate's commands may print.

pub mod document;
pub mod notes;
pub mod select;
pub mod table;
pub mod units;
pub mod views;
pub mod yaml;

use std::io::{IsTerminal as _, Write as _};

use clap::ValueEnum;
use ha_proto::codes;
use serde::Serialize;

use crate::args::Globals;
use crate::error::CliError;
use document::{Document, Items, Meta};
use select::Selector;
use table::Table;

/// Version of every JSON and YAML document.
pub const API_VERSION: &str = "hactl/v1";

/// How data is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// Aligned columns for people.
    #[default]
    Table,
    /// As table, with every column.
    Wide,
    /// One JSON document, or one a line for streams.
    Json,
    /// YAML with the same content as JSON.
    Yaml,
    /// Only names, one a line, as KIND/NAME.
    Name,
}

impl Format {
    /// Whether programs read it.
    pub fn is_structured(self) -> bool {
        matches!(self, Self::Json | Self::Yaml)
    }
}

/// When colour is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set or TERM is dumb.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl ColorChoice {
    /// Whether to use colour on something that is, or is not, a terminal.
    pub fn decide(self, terminal: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty());
                terminal && set("NO_COLOR").is_none() && set("TERM").is_none_or(|t| t != "dumb")
            }
        }
    }
}

/// Something that is listed: a line of a table, an item of a document.
pub trait View: Serialize {
    /// Its name.
    fn name(&self) -> String;
    /// The word before its name under `-o name`.
    const KIND: &'static str;
    /// The columns, and whether each is shown only when wide.
    const COLUMNS: &'static [Column];
    /// The cells, as many as columns. `now` is the moment ages are counted from, milliseconds since 1970.
    fn cells(&self, now: i64) -> Vec<table::Cell>;
    /// Labels, for kinds that have them.
    fn labels(&self) -> Option<&std::collections::BTreeMap<String, String>> {
        None
    }
}

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Its head.
    pub title: &'static str,
    /// Shown only under `-o wide`.
    pub wide: bool,
}

/// A column that is always shown.
pub const fn col(title: &'static str) -> Column {
    Column { title, wide: false }
}

/// A column of `-o wide`.
pub const fn wide(title: &'static str) -> Column {
    Column { title, wide: true }
}

/// Where data goes.
#[derive(Debug, Clone)]
pub struct Out {
    /// The format that was asked for.
    pub format: Format,
    headers: bool,
    sort_by: Option<String>,
    selector: Option<String>,
    colour: bool,
    /// What is said on the side.
    pub notes: notes::Notes,
}

impl Out {
    /// As the global flags say.
    pub fn new(globals: &Globals) -> Self {
        Self {
            format: globals.output,
            headers: !globals.no_headers,
            sort_by: globals.sort_by.clone(),
            selector: globals.selector.clone(),
            colour: globals.color.decide(std::io::stdout().is_terminal()),
            notes: notes::Notes::new(globals),
        }
    }

    /// Whether stdout gets colour.
    pub fn colour(&self) -> bool {
        self.colour
    }

    /// Writes text as it is. Silent, with a silent error, when the reader has gone.
    ///
    /// # Errors
    /// `HA0002` if stdout cannot be written.
    pub fn text(&self, text: &str) -> Result<(), CliError> {
        let mut stdout = std::io::stdout().lock();
        stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush())
            .map_err(|e| {
                if e.kind() == std::io::ErrorKind::BrokenPipe {
                    return CliError::silent(codes::exit::OK);
                }
                CliError::new(codes::BAD_FILE, "cannot write the output").why(e.to_string())
            })
    }

    /// Writes a line.
    ///
    /// # Errors
    /// As [`Self::text`].
    pub fn line(&self, text: &str) -> Result<(), CliError> {
        self.text(&format!("{text}\n"))
    }

    /// Writes a list in the format that was asked for, filtered and sorted as the flags say.
    ///
    /// # Errors
    /// `HA0009` for a selector or sort field that does not fit.
    pub fn list<V: View>(&self, kind: &'static str, meta: &Meta, items: Vec<V>, now: i64) -> Result<(), CliError> {
        self.list_with(kind, meta, items, now, "")
    }

    /// As [`Self::list`]; `empty` is said on stderr where a table would have no rows.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub fn list_with<V: View>(
        &self,
        kind: &'static str,
        meta: &Meta,
        items: Vec<V>,
        now: i64,
        empty: &str,
    ) -> Result<(), CliError> {
        let items = self.arrange(items, now)?;
        match self.format {
            Format::Json | Format::Yaml => self.document(&Document::new(kind, meta, Items { items })),
            Format::Name => self.names(&items),
            Format::Table | Format::Wide => {
                if items.is_empty() && !empty.is_empty() {
                    self.notes.say(empty);
                    return Ok(());
                }
                self.text(&self.table(&items, now).render(self.headers, self.colour))
            }
        }
    }

    /// Writes one document, as JSON or YAML.
    ///
    /// # Errors
    /// As [`Self::text`].
    pub fn document<T: Serialize>(&self, document: &T) -> Result<(), CliError> {
        let failed = |e: serde_json::Error| CliError::new(codes::INTERNAL, "cannot write JSON").why(e.to_string());
        if self.format == Format::Yaml {
            let json = serde_json::to_string(document).map_err(failed)?;
            return self.text(&yaml::from_json(&json).map_err(failed)?);
        }
        let text = serde_json::to_string_pretty(document).map_err(failed)?;
        self.line(&text)
    }

    /// Writes one document of a stream: a line of JSON, or a YAML document.
    ///
    /// # Errors
    /// As [`Self::text`].
    pub fn stream_document<T: Serialize>(&self, document: &T) -> Result<(), CliError> {
        if self.format == Format::Yaml {
            self.text("---\n")?;
            return self.document(document);
        }
        let text = serde_json::to_string(document)
            .map_err(|e| CliError::new(codes::INTERNAL, "cannot write JSON").why(e.to_string()))?;
        self.line(&text)
    }

    /// The table of these items.
    pub fn table<V: View>(&self, items: &[V], now: i64) -> Table {
        let shown = |column: &Column| self.format == Format::Wide || !column.wide;
        let mut table = Table::new(V::COLUMNS.iter().filter(|c| shown(c)).map(|c| c.title));
        for item in items {
            let cells = item.cells(now).into_iter().zip(V::COLUMNS);
            table.row(
                cells
                    .filter(|(_, column)| shown(column))
                    .map(|(cell, _)| cell)
                    .collect(),
            );
        }
        table
    }

    /// The text of a table of these items, filtered and sorted as the flags say.
    ///
    /// # Errors
    /// `HA0009` for a selector or sort field that does not fit.
    pub fn table_of<V: View>(&self, items: Vec<V>, now: i64) -> Result<String, CliError> {
        let items = self.arrange(items, now)?;
        Ok(self.table(&items, now).render(self.headers, self.colour))
    }

    fn names<V: View>(&self, items: &[V]) -> Result<(), CliError> {
        let text = items
            .iter()
            .map(|item| format!("{}/{}\n", V::KIND, item.name()))
            .collect::<String>();
        self.text(&text)
    }

    fn arrange<V: View>(&self, mut items: Vec<V>, now: i64) -> Result<Vec<V>, CliError> {
        if let Some(selector) = &self.selector {
            let selector = Selector::parse(selector)?;
            if items.iter().any(|item| item.labels().is_none()) {
                return Err(CliError::new(
                    codes::BAD_VALUE,
                    format!("a {} has no labels to select by", V::KIND),
                ));
            }
            items.retain(|item| item.labels().is_some_and(|labels| selector.matches(labels)));
        }
        if let Some(field) = &self.sort_by {
            select::sort(&mut items, field, now)?;
        }
        Ok(items)
    }
}
