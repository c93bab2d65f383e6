//! What may leave ZooKeeper: old entries of the change log, operations that are long over. Failing to delete them costs
//! nothing but room, so nothing here may hold the master up.

use std::sync::Arc;

use futures::{StreamExt as _, stream};
use ha_core::change_name;
use ha_core::changes::{self, KEEP};

use super::seal::PARALLEL;
use super::store::Store;
use crate::coordination::CoordError;

impl Store {
    /// Deletes old entries and finished operations, if enough have piled up. Failing to costs nothing but room.
    pub(super) async fn trim(&mut self, names: &[String]) {
        let c = Arc::clone(&self.c);
        let old = changes::trimmable(names, KEEP).into_iter().map(|seq| {
            let c = &c;
            async move { (seq, c.delete(&format!("/changes/{}", change_name(seq)), 0).await) }
        });
        let mut deleted = stream::iter(old).buffered(PARALLEL);
        while let Some((seq, outcome)) = deleted.next().await {
            match outcome {
                Ok(()) | Err(CoordError::NotFound(_)) => self.oldest = seq + 1,
                Err(_) => return,
            }
        }
    }

    /// Trims the log when it has grown by a step since the oldest entry.
    pub(super) async fn trim_if_due(&mut self) {
        if self.tail.saturating_sub(self.oldest) < KEEP + changes::TRIM_STEP {
            return;
        }
        let names: Vec<String> = (self.oldest..=self.tail).map(change_name).collect();
        self.trim(&names).await;
    }

    /// Forgets finished operations beyond the newest `keep`.
    pub(super) async fn trim_ops(&mut self, keep: usize) {
        let mut finished: Vec<(i64, String)> = self
            .ops
            .iter()
            .filter_map(|(id, s)| Some((s.envelope.value.as_ref()?.finished_ms?, id.clone())))
            .collect();
        finished.sort_unstable();
        let surplus = finished.len().saturating_sub(keep);
        for (_, id) in finished.into_iter().take(surplus) {
            let version = self.ops.get(&id).map_or(0, |s| s.version);
            if self.c.delete(&format!("/ops/{id}"), version).await.is_err() {
                return;
            }
            self.ops.remove(&id);
        }
    }
}
