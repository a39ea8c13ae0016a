//! `FileJournal` in a folder of its own.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use oma_core::conformance::{self, CopyJournalSubject, Trial};
use oma_core::traits::CopyJournal;
use oma_volume::journal::FileJournal;
use tempfile::TempDir;

pub(crate) fn trials() -> Vec<Trial> {
    conformance::cases("file_journal", &conformance::copy_journal_cases(), async || {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("journal");
        let open = move || -> BoxFuture<'static, Arc<dyn CopyJournal>> {
            let path = path.clone();
            Box::pin(async move {
                let journal: Arc<dyn CopyJournal> = Arc::new(FileJournal::open(path).await.unwrap());
                journal
            })
        };
        CopyJournalSubject { open: Arc::new(open), guard: Box::new(folder) }
    })
}
