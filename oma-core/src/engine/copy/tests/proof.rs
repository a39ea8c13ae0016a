//! Copies that are compared, before and after.

use std::sync::Mutex;

use super::*;
use crate::ChangeId;
use crate::direct::DirectDescription;
use crate::memory::MemoryCopyJournal;
use crate::record::{CopyBasis, CopyEntry, SampleSize};
use crate::traits::Changes;

const SIZE: u64 = 1 << 20;

async fn filled(name: &str) -> MemoryDevice {
    let device = device(name, SIZE);
    let data: Vec<u8> = (0..SIZE).map(|at| u8::try_from(at % 251).unwrap() | 1).collect();
    device.write_at(0, data.into(), Durability::Durable).await.unwrap();
    device
}

/// Writes to a device when the copy has copied something.
#[derive(Debug)]
struct Meddler(Mutex<Option<MemoryDevice>>);

impl Progress for Meddler {
    fn event(&self, event: Event<'_>) {
        if let Event::Copied { progress, .. } = event
            && progress.done == progress.total
            && let Some(device) = self.0.lock().unwrap().take()
        {
            let write = device.write_at(4096, vec![0; 512].into(), Durability::Durable);
            futures_util::FutureExt::now_or_never(write).expect("memory answers at once").unwrap();
        }
    }
}

/// A disk that was written when its device was.
#[derive(Debug)]
struct Watched(MemoryDevice);

#[async_trait]
impl DirectDisk for Watched {
    async fn describe(&self) -> Result<DirectDescription> {
        let content = format!("content-{}", self.0.calls().writes);
        let content = PointId::parse(content).unwrap();
        Ok(DirectDescription { capacity: self.0.info().capacity, location: "memory".to_owned(), content })
    }

    async fn changed(&self, _: &ChangeId) -> Result<Changes> {
        Ok(Changes::Unknown("nobody asks".to_owned()))
    }

    async fn confirm(&self, content: &PointId) -> Result<()> {
        match self.describe().await?.content == *content {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Conflict, "copy", "memory").because("it was written")),
        }
    }

    async fn open(&self) -> Result<Arc<dyn BlockDevice>> {
        Ok(Arc::new(self.0.clone()))
    }
}

async fn original(device: &MemoryDevice) -> Original {
    let disk = Watched(device.clone());
    let content = disk.describe().await.unwrap().content;
    Original { disk: Arc::new(disk), content }
}

fn journal() -> (MemoryCopyJournal, Resume) {
    let journal = MemoryCopyJournal::default();
    let content = PointId::parse("content").unwrap();
    (journal.clone(), Resume { journal: Arc::new(journal), content, target: "target".to_owned() })
}

async fn meddled(request: &CopyRequest, device: &MemoryDevice) -> Error {
    let meddler = Meddler(Mutex::new(Some(device.clone())));
    copy(request, &ReplicateConfig::default(), &meddler, &CancellationToken::new()).await.unwrap_err()
}

#[tokio::test]
async fn a_repair_copies_only_what_differs() {
    let (source, target) = (filled("a").await, filled("b").await);
    target.write_at(8192, vec![0; 4096].into(), Durability::Durable).await.unwrap();
    let before = (source.calls().bytes_read, target.calls().bytes_written);
    let request = CopyRequest { repair: true, verify: VerifyLevel::Full, ..request(&source, &target) };
    let report = run(&request).await.unwrap();
    assert!(source.bytes() == target.bytes());
    assert_eq!((report.bytes_equal.bytes(), report.bytes_written.bytes()), (SIZE - 4096, 4096));
    assert_eq!((report.bytes_total.bytes(), report.bytes_verified.bytes()), (SIZE, SIZE));
    assert_eq!(target.calls().bytes_written - before.1, 4096);
    // It is hashed twice; what differs is looked at within its leaf, and copied.
    assert_eq!(source.calls().bytes_read - before.0, 2 * SIZE + 65_536 + 4096);
    assert!(report.stages.of(crate::engine::Stage::Hash) > Duration::ZERO);
}

#[tokio::test]
async fn l14_a_copy_that_differs_is_no_success_at_any_level_that_sees_it() {
    for verify in [VerifyLevel::Full, VerifyLevel::Changed, VerifyLevel::Sample(SampleSize::Permille(1000))] {
        let (source, target) = (filled("a").await, device("b", SIZE));
        let (journal, resume) = journal();
        let request = CopyRequest {
            verify,
            blank: true,
            resume: Some(resume),
            // A sample of all of it is of all that was asked for.
            extents: Some([Extent::new(4096, 700_000).unwrap()].into_iter().collect()),
            ..request(&source, &target)
        };
        let error = meddled(&request, &target).await;
        assert_eq!(error.kind(), ErrorKind::Mismatch, "{}", error.chain());
        assert!(
            error.chain().contains("4096+4096") && error.chain().contains("--repair"),
            "{}",
            error.chain()
        );
        let entry = journal.load().await.unwrap().expect("the target is no blank one, and the journal tells");
        assert!(entry.finished.is_empty(), "what is not so is not believed");
        let report = run(&request).await.unwrap();
        assert!(source.bytes()[4096..704_096] == target.bytes()[4096..704_096]);
        assert_eq!((report.bytes_verified.bytes(), report.bytes_written.bytes()), (700_000, 700_000));
        assert!(report.bytes_recopied.bytes() >= 700_000, "{report:?}");
        assert_eq!(journal.load().await.unwrap(), None);
    }
}

#[tokio::test]
async fn l11_a_copy_of_a_source_that_was_written_is_no_success_and_keeps_its_journal() {
    let (source, target) = (filled("a").await, device("b", SIZE));
    let (journal, resume) = journal();
    let original = Some(original(&source).await);
    let request = CopyRequest { blank: true, resume: Some(resume), original, ..request(&source, &target) };
    let error = meddled(&request, &source).await;
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.chain().contains("it was written; then copy what differs"), "{}", error.chain());
    assert!(journal.load().await.unwrap().is_some(), "nobody takes the target for a blank one");
}

#[tokio::test]
async fn a_repair_believes_no_journal() {
    let (source, target) = (filled("a").await, filled("b").await);
    let (journal, resume) = journal();
    let request = CopyRequest { resume: Some(resume), ..request(&source, &target) };
    let basis = resume::basis(&request, request.resume.as_ref().unwrap());
    journal.begin(&basis, ByteSize::ZERO).await.unwrap();
    journal.record(Extent::new(0, SIZE).unwrap()).await.unwrap();
    target.write_at(SIZE - 1, vec![0; 1].into(), Durability::Durable).await.unwrap();
    let report = run(&CopyRequest { repair: true, ..request }).await.unwrap();
    assert!(source.bytes() == target.bytes());
    assert_eq!((report.bytes_resumed, report.bytes_written.bytes()), (ByteSize::ZERO, 4096));
    assert_eq!(journal.load().await.unwrap(), None);
}

#[tokio::test]
async fn l14_what_a_copy_has_copied_is_verified_in_whichever_run_of_it() {
    let (source, target) = (filled("a").await, device("b", SIZE));
    let (journal, resume) = journal();
    let verify = VerifyLevel::Changed;
    let request = CopyRequest { resume: Some(resume), verify, ..request(&source, &target) };
    // The run before was killed when all was finished, before it had compared anything.
    let basis = resume::basis(&request, request.resume.as_ref().unwrap());
    journal.begin(&basis, ByteSize::ZERO).await.unwrap();
    journal.record(Extent::new(0, SIZE).unwrap()).await.unwrap();
    target.write_at(0, source.bytes().into(), Durability::Durable).await.unwrap();
    let report = run(&request).await.unwrap();
    assert_eq!((report.bytes_resumed.bytes(), report.bytes_verified.bytes()), (SIZE, SIZE));
}

/// A journal that cannot be told anything more.
#[derive(Debug)]
struct Lost(MemoryCopyJournal);

#[async_trait]
impl CopyJournal for Lost {
    async fn load(&self) -> Result<Option<CopyEntry>> {
        self.0.load().await
    }

    async fn begin(&self, basis: &CopyBasis, unrecorded: ByteSize) -> Result<()> {
        self.0.begin(basis, unrecorded).await
    }

    async fn record(&self, finished: Extent) -> Result<()> {
        self.0.record(finished).await
    }

    async fn forget(&self) -> Result<()> {
        Err(Error::new(ErrorKind::NoSpace, "write journal", "memory"))
    }

    async fn end(&self) -> Result<()> {
        self.0.end().await
    }
}

#[tokio::test]
async fn l14_differences_are_told_whatever_else_fails() {
    let (source, target) = (filled("a").await, device("b", SIZE));
    let (inner, resume) = journal();
    let resume = Some(Resume { journal: Arc::new(Lost(inner)), ..resume });
    let original = Some(original(&source).await);
    let request = CopyRequest { verify: VerifyLevel::Full, resume, original, ..request(&source, &target) };
    let error = meddled(&request, &source).await;
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    for told in ["at 4096+4096", "it was written", "its journal says that all is finished, remove it"] {
        assert!(error.chain().contains(told), "{}", error.chain());
    }
}
