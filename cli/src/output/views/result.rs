//! What a change did.

use serde::Serialize;

use super::operation::OperationView;

/// The result of a change, as a document.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResultView {
    /// What was changed, as KIND/NAME.
    pub subject: String,
    /// False: it was so already.
    pub changed: bool,
    /// Nothing was done, only planned.
    pub dry_run: bool,
    /// What was, or would be, done.
    pub plan: Vec<String>,
    /// The operation the change goes on as.
    pub operation_id: Option<String>,
    /// The operation as it was when waiting for it ended.
    pub operation: Option<OperationView>,
    /// Files that were written here.
    pub files: Vec<String>,
}
