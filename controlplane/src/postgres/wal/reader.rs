//! Reads the pages and records of a log on disk, as a server that recovers does: what does not fit is the log's end.
//!
//! Segment files are used again under new names, so what stands in one is believed only where each page names its own
//! position, and each record its length, its predecessor and its checksum. Reads only.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use ha_core::database::Lsn;

use super::super::history::History;
use super::crc::crc32c;

/// Bytes of a page of the log; builds with others are not known in practice and not read here.
const PAGE: u64 = 8192;
const SHORT_HEADER: u64 = 24;
const LONG_HEADER: u64 = 40;
const RECORD_HEADER: usize = 24;
/// Greatest record PostgreSQL writes, in bytes.
const MAX_RECORD: usize = 1 << 30;

const FIRST_IS_CONTINUED: u16 = 1;
const IS_LONG: u16 = 2;
const FIRST_IS_OVERWRITTEN: u16 = 8;
const ALL_FLAGS: u16 = 15;

/// Resource manager and kind of the record that ends a segment early.
const RM_XLOG: u8 = 0;
const XLOG_SWITCH: u8 = 0x40;

/// What a page says of itself.
#[derive(Debug, Clone, Copy)]
struct Header {
    magic: u16,
    flags: u16,
    /// Bytes of a record from the page before.
    rest: u64,
    length: u64,
}

/// A record that is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    /// Where it begins.
    pub(super) start: Lsn,
    /// Where the next one begins, but for the header of a page.
    pub(super) end: Lsn,
}

/// A segment file.
struct Segment {
    number: u64,
    timeline: u32,
    file: File,
}

/// The log of one history of timelines in a directory.
pub(super) struct Reader<'a> {
    dir: &'a Path,
    history: &'a History,
    segment_size: u64,
    system_id: u64,
    /// All pages of a log have the same.
    magic: Option<u16>,
    open: Option<Segment>,
    page: Vec<u8>,
    /// Position of the page in `page` and its header.
    loaded: Option<(u64, Header)>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(dir: &'a Path, history: &'a History, segment_size: u64, system_id: u64) -> Self {
        Self {
            dir,
            history,
            segment_size,
            system_id,
            magic: None,
            open: None,
            page: vec![0; PAGE as usize],
            loaded: None,
        }
    }

    fn path(&self, timeline: u32, segment: u64) -> PathBuf {
        let per_id = (1u64 << 32) / self.segment_size;
        self.dir.join(format!(
            "{timeline:08X}{:08X}{:08X}",
            segment / per_id,
            segment % per_id
        ))
    }

    /// Opens a segment: of the newest timeline that has begun by then, and of an older one where that has no file.
    fn open_segment(&mut self, number: u64) -> bool {
        if self.open.as_ref().is_some_and(|s| s.number == number) {
            return true;
        }
        for (timeline, begin) in self.history.branches().into_iter().rev() {
            let ended = self
                .left_at(timeline)
                .is_some_and(|end| end.0 <= number * self.segment_size);
            if begin.0 / self.segment_size > number || ended {
                continue;
            }
            if let Ok(file) = File::open(self.path(timeline, number)) {
                self.open = Some(Segment { number, timeline, file });
                self.loaded = None;
                // A file that was put there for later use is no reason to pass over an older timeline's.
                if self.load(number * self.segment_size).is_some() {
                    return true;
                }
            }
        }
        self.open = None;
        self.loaded = None;
        false
    }

    /// Where a timeline was left by the next one of the history.
    fn left_at(&self, timeline: u32) -> Option<Lsn> {
        self.history.end_of(timeline).flatten()
    }

    /// Whether a segment is there and holds, at least at its beginning, this log.
    pub(super) fn has_segment(&mut self, segment: u64) -> bool {
        self.open_segment(segment)
    }

    /// Loads the page at a position, which is a page's beginning, from the open segment.
    fn load(&mut self, at: u64) -> Option<Header> {
        if let Some((loaded, header)) = self.loaded
            && loaded == at
        {
            return Some(header);
        }
        self.loaded = None;
        let file = &mut self.open.as_mut()?.file;
        file.seek(SeekFrom::Start(at % self.segment_size)).ok()?;
        file.read_exact(&mut self.page).ok()?;
        let header = self.header(at)?;
        self.loaded = Some((at, header));
        Some(header)
    }

    fn header(&mut self, at: u64) -> Option<Header> {
        let p = &self.page;
        let flags = u16_at(p, 2);
        let long = flags & IS_LONG != 0;
        let first = at.is_multiple_of(self.segment_size);
        let timeline = u32_at(p, 4);
        let fits = flags & !ALL_FLAGS == 0
            && u64_at(p, 8) == at
            && long == first
            && self.open.as_ref().is_some_and(|s| timeline <= s.timeline)
            && self.history.end_of(timeline).is_some()
            && self.magic.is_none_or(|m| m == u16_at(p, 0))
            && u16_at(p, 0) != 0;
        let fits_long = !long
            || u64_at(p, 24) == self.system_id
                && u64::from(u32_at(p, 32)) == self.segment_size
                && u64::from(u32_at(p, 36)) == PAGE;
        if !fits || !fits_long {
            return None;
        }
        let header = Header {
            magic: u16_at(p, 0),
            flags,
            rest: u64::from(u32_at(p, 16)),
            length: if long { LONG_HEADER } else { SHORT_HEADER },
        };
        self.magic = Some(header.magic);
        Some(header)
    }

    /// The page at a position.
    fn page(&mut self, at: u64) -> Option<Header> {
        self.open_segment(at / self.segment_size).then(|| self.load(at))?
    }

    /// Where the first record that begins in a segment begins.
    pub(super) fn first_record(&mut self, segment: u64) -> Option<Lsn> {
        let (mut at, end) = (segment * self.segment_size, (segment + 1) * self.segment_size);
        while at < end {
            let header = self.page(at)?;
            let rest = if header.flags & FIRST_IS_CONTINUED == 0 {
                0
            } else {
                align(header.rest)
            };
            if rest < PAGE - header.length {
                return Some(Lsn(at + header.length + rest));
            }
            at += PAGE;
        }
        None
    }

    /// Reads the record at a position, and where the next is. `before` is the record before it, if that is known.
    pub(super) fn record(&mut self, at: Lsn, before: Option<Lsn>) -> Step {
        let mut pos = at.0;
        if pos.is_multiple_of(PAGE) {
            match self.page(pos) {
                Some(h) if h.flags & FIRST_IS_CONTINUED == 0 => pos += h.length,
                _ => return Step::End,
            }
        }
        let start = pos;
        // What stands in a timeline's file past the point where it was left is of another history.
        let left = |r: &Self| r.open.as_ref().and_then(|s| r.left_at(s.timeline));
        if self.page(start - start % PAGE).is_none() || left(self).is_some_and(|end| start >= end.0) {
            return Step::End;
        }
        let offset = (start % PAGE) as usize;
        let Some(length) = self.page.get(offset..offset + 4).map(|b| u32_at(b, 0) as usize) else {
            return Step::End;
        };
        if !(RECORD_HEADER..=MAX_RECORD).contains(&length) {
            return Step::End;
        }
        let mut bytes: Vec<u8> = Vec::with_capacity(length.min(1 << 16));
        loop {
            let offset = (pos % PAGE) as usize;
            let take = (PAGE as usize - offset).min(length - bytes.len());
            bytes.extend_from_slice(&self.page[offset..offset + take]);
            pos += take as u64;
            if bytes.len() == length {
                break;
            }
            // On the next page the record goes on, or was given up by a server that crashed in the middle of it.
            match self.page(pos) {
                Some(h) if h.flags & FIRST_IS_OVERWRITTEN != 0 => return Step::GivenUp(Lsn(pos)),
                Some(h) if h.flags & FIRST_IS_CONTINUED != 0 && h.rest == (length - bytes.len()) as u64 => {
                    pos += h.length;
                }
                _ => return Step::End,
            }
        }
        let previous = Lsn(u64_at(&bytes, 8));
        let follows = before.map_or(previous.0 < start, |b| b == previous);
        if !follows || crc32c(&[&bytes[RECORD_HEADER..], &bytes[..20]]) != u32_at(&bytes, 20) {
            return Step::End;
        }
        let mut end = align(pos);
        if bytes[17] == RM_XLOG && bytes[16] & 0xF0 == XLOG_SWITCH {
            end = end.next_multiple_of(self.segment_size);
        }
        Step::Whole(Record {
            start: Lsn(start),
            end: Lsn(end),
        })
    }
}

/// What was found where a record should begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// A record.
    Whole(Record),
    /// One that was begun and never finished; the log goes on at this page.
    GivenUp(Lsn),
    /// Nothing: the log ends.
    End,
}

fn align(n: u64) -> u64 {
    n.next_multiple_of(8)
}

/// PostgreSQL writes in the byte order of the machine, and this is the machine.
fn u16_at(b: &[u8], at: usize) -> u16 {
    let mut n = [0; 2];
    n.copy_from_slice(&b[at..at + 2]);
    u16::from_ne_bytes(n)
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    let mut n = [0; 4];
    n.copy_from_slice(&b[at..at + 4]);
    u32::from_ne_bytes(n)
}

fn u64_at(b: &[u8], at: usize) -> u64 {
    let mut n = [0; 8];
    n.copy_from_slice(&b[at..at + 8]);
    u64::from_ne_bytes(n)
}
