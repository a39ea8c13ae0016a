//! `FileDevice` that waits with io_uring: what is read through a ring, and what where there is none.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use futures_util::future::{FutureExt, join_all};
use io_uring::IoUring;
use oma_core::conformance::{self, Requirement, Trial, sample};
use oma_core::traits::{Access, BlockDevice};
use oma_core::{ErrorKind, Result};
use oma_volume::device::FileDevice;
use rustix::fs::{Advice, fadvise};
use std::os::unix::fs::FileExt;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

const BLOCK: usize = 4096;
const BLOCKS: usize = 1024;
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn trials() -> Vec<Trial> {
    let needs = [Requirement::Feature("io_uring", IoUring::new(1).is_ok())];
    let one = |name: &str, needs: &[Requirement], body: fn()| {
        // A runtime of its own has a thread of its own.
        let alone = move || async move { thread::spawn(body).join().expect("its own message says why") };
        conformance::trial(&format!("file_device_with_uring::{name}"), needs, alone)
    };
    vec![
        one("a_cold_read_needs_no_blocking_thread", &needs, without_threads),
        one("a_read_that_is_dropped_leaves_its_place_to_others", &needs, dropped),
        one("a_read_outlives_the_runtime_that_began_it", &needs, moved),
        one("a_read_behind_the_end_of_a_truncated_file_says_so", &needs, truncated),
        one("where_io_uring_is_forbidden_threads_wait", &[], forbidden),
    ]
}

/// A file whose content is known and not in the page cache.
struct Cold {
    path: PathBuf,
    _folder: TempDir,
}

impl Cold {
    fn new() -> Self {
        // Not in the folder for temporary files, which may lie in memory.
        let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = folder.path().join("disk.raw");
        File::create(&path).unwrap().write_all_at(&sample(0, BLOCK * BLOCKS), 0).unwrap();
        let cold = Self { path, _folder: folder };
        cold.chill();
        cold
    }

    fn chill(&self) {
        let file = File::open(&self.path).unwrap();
        file.sync_all().unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    }
}

/// One thread for all blocking calls.
fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap()
}

async fn open(path: &Path) -> FileDevice {
    FileDevice::open(path, Access::ReadOnly).await.unwrap().with_uring()
}

/// Reads a block, of all of them in an order without neighbours, and proves what it holds.
async fn read(device: &FileDevice, number: usize) -> Result<()> {
    let place = u64::try_from(number * 389 % BLOCKS * BLOCK).unwrap();
    let found = device.read_at(place, BytesMut::zeroed(BLOCK)).await?;
    assert!(found == sample(place, BLOCK), "the block at {place} has the content of another");
    Ok(())
}

async fn read_all(device: &FileDevice) {
    for first in (0..BLOCKS).step_by(64) {
        let reads = join_all((first..first + 64).map(|number| read(device, number)));
        let done = timeout(PATIENCE, reads).await.expect("a read waits for a thread");
        done.into_iter().collect::<Result<Vec<_>>>().unwrap();
    }
}

/// Keeps the runtime's only thread for blocking calls until it is dropped.
fn occupy() -> mpsc::Sender<()> {
    let (keep, kept) = mpsc::channel();
    tokio::task::spawn_blocking(move || kept.recv());
    keep
}

fn without_threads() {
    let file = Cold::new();
    runtime().block_on(async {
        let device = open(&file.path).await;
        let _kept = occupy();
        read_all(&device).await;
    });
}

fn dropped() {
    let file = Cold::new();
    runtime().block_on(async {
        let device = open(&file.path).await;
        let _kept = occupy();
        for _ in 0..4 {
            for number in 0..BLOCKS {
                let begun = read(&device, number).now_or_never();
                begun.unwrap_or(Ok(())).unwrap();
                if number % 64 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            file.chill();
        }
        // Those that were left end in their own time.
        let (begun, mut limit) = (Instant::now(), Duration::from_millis(100));
        while timeout(limit, read_all(&device)).await.is_err() {
            assert!(begun.elapsed() < PATIENCE, "no place becomes free");
            // A busy machine may need longer for all of them.
            limit *= 2;
            file.chill();
        }
        file.chill();
        read_all(&device).await;
    });
}

fn moved() {
    let file = Cold::new();
    let (first, second) = (runtime(), runtime());
    let device = first.block_on(open(&file.path));
    let mut reads: Vec<_> = (0..64).map(|number| Box::pin(read(&device, number))).collect();
    first.block_on(async { reads.retain_mut(|read| read.now_or_never().is_none()) });
    drop(first);
    let done = second.block_on(async { timeout(PATIENCE, join_all(reads)).await });
    done.unwrap().into_iter().collect::<Result<Vec<_>>>().unwrap();
    file.chill();
    second.block_on(read_all(&device));
}

fn truncated() {
    let file = Cold::new();
    runtime().block_on(async {
        let device = open(&file.path).await;
        let half = u64::try_from(BLOCK * BLOCKS / 2).unwrap();
        File::options().write(true).open(&file.path).unwrap().set_len(half + 1).unwrap();
        file.chill();
        for place in [half, half + 4096] {
            let error = device.read_at(place, BytesMut::zeroed(BLOCK)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{}", error.chain());
        }
    });
}

fn forbidden() {
    forbid();
    assert!(IoUring::new(1).is_err());
    let file = Cold::new();
    runtime().block_on(async { read_all(&open(&file.path).await).await });
}

/// Forbids io_uring to this thread and those that it starts, as container engines do.
fn forbid() {
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let setup = u32::try_from(libc::SYS_io_uring_setup).unwrap();
    let refused = libc::SECCOMP_RET_ERRNO | u32::try_from(libc::EPERM).unwrap();
    // Is it this system call, whose number comes first in `struct seccomp_data`?
    let [load, equal, answer] =
        [libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, libc::BPF_JMP | libc::BPF_JEQ, libc::BPF_RET]
            .map(|code| u16::try_from(code).unwrap());
    let mut steps = [
        step(load, 0, 0, 0),
        step(equal, 0, 1, setup),
        step(answer, 0, 0, refused),
        step(answer, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: steps.as_mut_ptr() };
    #[allow(unsafe_code, reason = "no library we use has seccomp")]
    // SAFETY: the kernel reads the program and its four steps during the call, and both live until it is over.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    assert!(done, "{}", std::io::Error::last_os_error());
}
