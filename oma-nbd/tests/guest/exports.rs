//! Exports as block devices of the machine.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use oma_core::memory::{HeldDevice, Hold, MemoryDevice};
use oma_core::traits::{Access, Drained, ExportServer, ExportSpec};
use oma_core::{ByteSize, ErrorKind, ExportName, Fence};
use oma_nbd::kernel::{KernelConfig, KernelExports, attached, sweep};

use crate::inside::{Case, blocking, cases, program, runtime, well};

/// Makes this program attach an export and wait to be killed.
pub(crate) const ABANDON: &str = "--attach-and-wait";
/// A deadline that is not reached.
const LONG: Duration = Duration::from_secs(30);
/// A deadline that is.
const SHORT: Duration = Duration::from_millis(200);
/// Not a whole number of 4 KiB.
const SIZE: ByteSize = ByteSize::new((8 << 20) + 512);

pub(crate) fn cases() -> Vec<Case> {
    cases![
        an_export_is_a_block_device_of_its_size,
        l23_what_was_written_is_flushed_before_an_export_is_detached,
        l23_a_file_system_is_waited_for,
        l23_a_device_that_does_not_answer_is_detached_and_stays_listed,
        l16_a_newer_token_takes_the_device_of_the_older_one,
        l06_a_device_is_not_attached_twice_for_writing,
        l22_publishing_and_withdrawing_touch_no_other_device,
        l24_a_start_sweeps_what_a_dead_process_left,
        a_read_only_export_cannot_be_written,
        trimming_and_zeroing_reach_the_device,
        a_request_that_takes_too_long_fails_and_the_machine_lives_on,
        the_same_export_published_again_changes_nothing,
        sizes_that_have_no_whole_sectors_are_refused,
    ]
}

pub(crate) fn name(text: &str) -> ExportName {
    ExportName::parse(text).unwrap()
}

pub(crate) fn spec(export: &str, device: &MemoryDevice) -> ExportSpec {
    ExportSpec {
        name: name(export),
        description: String::new(),
        access: Access::ReadWrite,
        fence: Fence(5),
        device: Arc::new(device.clone()),
    }
}

fn device(identity: &str) -> MemoryDevice {
    MemoryDevice::new(identity, SIZE)
}

pub(crate) fn exports() -> KernelExports {
    // On a slow machine a kernel thread may come to receive for two connections, one after the other: what the second is sent
    // comes again by the first once its time is over.
    KernelExports::new(KernelConfig { request_timeout: Duration::from_secs(6), ..KernelConfig::default() })
}

async fn publish(exports: &KernelExports, spec: ExportSpec) -> PathBuf {
    let name = spec.name.clone();
    exports.publish(spec).await.unwrap();
    exports.path(&name).await.unwrap()
}

async fn write(path: &Path, offset: u64, bytes: &'static [u8]) -> std::io::Result<()> {
    let path = path.to_owned();
    blocking(move || OpenOptions::new().write(true).open(path)?.write_all_at(bytes, offset)).await
}

/// Past the page cache: a block of 512 bytes.
async fn read(path: &Path, offset: u64) -> std::io::Result<Vec<u8>> {
    let path = path.to_owned();
    blocking(move || {
        let mut block = vec![0; 512];
        File::open(path)?.read_exact_at(&mut block, offset)?;
        Ok(block)
    })
    .await
}

async fn an_export_is_a_block_device_of_its_size() {
    let (exports, d) = (exports(), device("d"));
    let path = publish(&exports, spec("a", &d)).await;
    assert_eq!(
        well(&format!("blockdev --getsize64 {}", path.display())).await.trim(),
        SIZE.bytes().to_string()
    );
    let last = SIZE.bytes() - 512;
    write(&path, last, b"the end").await.unwrap();
    well("sync").await;
    let at = usize::try_from(last).unwrap();
    assert_eq!(&d.bytes()[at..at + 7], b"the end");
    well("echo 3 > /proc/sys/vm/drop_caches").await;
    assert_eq!(&read(&path, last).await.unwrap()[..7], b"the end");
    let found = attached().await.unwrap();
    assert_eq!((found.len(), &found[0].path, found[0].is_served), (1, &path, true));
    assert_eq!((found[0].name.as_str(), found[0].fence, found[0].device.0.as_str()), ("a", Fence(5), "d"));
    assert_eq!(exports.withdraw(&name("a"), LONG).await.unwrap(), Drained::Graceful);
    assert!(attached().await.unwrap().is_empty());
    assert_eq!(exports.withdraw(&name("a"), LONG).await.unwrap(), Drained::Absent);
    assert_eq!(exports.path(&name("a")).await, None);
}

async fn l23_what_was_written_is_flushed_before_an_export_is_detached() {
    let (exports, d) = (exports(), device("d"));
    let path = publish(&exports, spec("a", &d)).await;
    // Kept open: the last to close it would flush it.
    let open = blocking({
        let path = path.clone();
        move || {
            let file = OpenOptions::new().write(true).open(path).unwrap();
            file.write_all_at(b"in the page cache", 4096).unwrap();
            file
        }
    })
    .await;
    assert_eq!(exports.withdraw(&name("a"), LONG).await.unwrap(), Drained::Graceful);
    drop(open);
    assert_eq!(&d.bytes()[4096..4096 + 17], b"in the page cache");
    assert!(d.unflushed().is_empty());
    assert!(write(&path, 0, b"late").await.is_err() || d.bytes()[..4] == [0; 4]);
    assert_eq!(d.bytes()[..4], [0; 4]);
}

async fn l23_a_file_system_is_waited_for() {
    let (exports, d) = (exports(), device("d"));
    let path = publish(&exports, spec("a", &d)).await;
    let node = path.display();
    well(&format!("mkdir -p /tmp/m && mke2fs -q {node}")).await;
    let (said, mounted) =
        program(&format!("mount -t ext4 {node} /tmp/m || mount -t ext2 {node} /tmp/m")).await;
    assert!(mounted, "{said}");
    well("echo hello > /tmp/m/file").await;
    let withdrawing = tokio::spawn({
        let exports = exports.clone();
        async move { exports.withdraw(&name("a"), LONG).await }
    });
    assert_eq!(well("cat /tmp/m/file").await.trim(), "hello");
    assert!(!withdrawing.is_finished());
    well("umount /tmp/m").await;
    assert_eq!(withdrawing.await.unwrap().unwrap(), Drained::Graceful);
    assert!(d.unflushed().is_empty());
}

async fn l23_a_device_that_does_not_answer_is_detached_and_stays_listed() {
    let (exports, d, hold) = (exports(), device("d"), Hold::default());
    let slow =
        ExportSpec { device: Arc::new(HeldDevice::new(Arc::new(d.clone()), hold.clone())), ..spec("a", &d) };
    let path = publish(&exports, slow).await;
    // Kept open: the last to close it would have to wait.
    let open = blocking(move || {
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(b"stuck", 0).unwrap();
        file
    })
    .await;
    hold.hold();
    let syncing = tokio::spawn(blocking(move || open.sync_all()));
    hold.reached(1).await;
    let busy = exports.withdraw(&name("a"), SHORT).await.unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::Busy);
    assert!(attached().await.unwrap().is_empty());
    assert_eq!(exports.publish(spec("b", &d)).await.unwrap_err().kind(), ErrorKind::Conflict);
    hold.release();
    syncing.await.unwrap().unwrap_err();
    assert_ne!(exports.withdraw(&name("a"), LONG).await.unwrap(), Drained::Absent);
}

async fn l16_a_newer_token_takes_the_device_of_the_older_one() {
    let (exports, d, e) = (exports(), device("d"), device("e"));
    let path = publish(&exports, spec("a", &d)).await;
    let old = blocking(move || OpenOptions::new().write(true).open(path).unwrap()).await;
    let older = ExportSpec { fence: Fence(4), ..spec("a", &d) };
    assert_eq!(exports.publish(older).await.unwrap_err().kind(), ErrorKind::Fenced);
    let path = publish(&exports, ExportSpec { fence: Fence(6), ..spec("a", &e) }).await;
    // What the old handle writes goes nowhere.
    let _ = blocking(move || (&old).write_all(b"late").and_then(|()| old.sync_all())).await;
    write(&path, 0, b"new").await.unwrap();
    assert_eq!(exports.withdraw(&name("a"), LONG).await.unwrap(), Drained::Graceful);
    assert_eq!((&d.bytes()[..4], &e.bytes()[..3]), (&[0; 4][..], &b"new"[..]));
}

async fn l06_a_device_is_not_attached_twice_for_writing() {
    let (exports, d) = (exports(), device("d"));
    publish(&exports, spec("a", &d)).await;
    assert_eq!(exports.publish(spec("b", &d)).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(attached().await.unwrap().len(), 1);
    exports.withdraw(&name("a"), LONG).await.unwrap();
}

async fn l22_publishing_and_withdrawing_touch_no_other_device() {
    let (exports, d) = (exports(), device("d"));
    let path = publish(&exports, spec("a", &d)).await;
    let open = blocking({
        let path = path.clone();
        move || OpenOptions::new().write(true).open(path).unwrap()
    })
    .await;
    let other = publish(&exports, spec("b", &device("e"))).await;
    assert_ne!(path, other);
    exports.withdraw(&name("b"), LONG).await.unwrap();
    blocking(move || (&open).write_all(b"still here").and_then(|()| open.sync_all())).await.unwrap();
    assert_eq!(&d.bytes()[..10], b"still here");
    exports.withdraw(&name("a"), LONG).await.unwrap();
}

async fn l24_a_start_sweeps_what_a_dead_process_left() {
    let exports = exports();
    publish(&exports, spec("alive", &device("d"))).await;
    let mut child = blocking(|| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut child = command.arg(ABANDON).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line)
            .unwrap();
        assert_eq!(line.trim(), "attached");
        child
    })
    .await;
    assert!(sweep().await.unwrap().is_empty(), "its process lives");
    blocking(move || {
        child.kill().unwrap();
        child.wait().unwrap();
    })
    .await;
    let swept = sweep().await.unwrap();
    assert_eq!(swept.iter().map(|found| found.name.as_str()).collect::<Vec<_>>(), ["abandoned"]);
    assert!(sweep().await.unwrap().is_empty());
    let left = attached().await.unwrap();
    assert_eq!(left.iter().map(|found| found.name.as_str()).collect::<Vec<_>>(), ["alive"]);
    exports.withdraw(&name("alive"), LONG).await.unwrap();
}

/// What the process does that is killed.
pub(crate) fn abandon() -> ExitCode {
    runtime().block_on(async {
        let exports = exports();
        publish(&exports, spec("abandoned", &device("x"))).await;
        println!("attached");
        std::future::pending::<()>().await;
    });
    ExitCode::SUCCESS
}

async fn a_read_only_export_cannot_be_written() {
    let (exports, d) = (exports(), device("d"));
    let path = publish(&exports, ExportSpec { access: Access::ReadOnly, ..spec("a", &d) }).await;
    write(&path, 0, b"x").await.unwrap_err();
    assert_eq!(read(&path, 0).await.unwrap(), vec![0; 512]);
    assert_eq!(exports.withdraw(&name("a"), LONG).await.unwrap(), Drained::Graceful);
    assert_eq!(d.calls().writes, 0);
}

async fn trimming_and_zeroing_reach_the_device() {
    let (exports, d) = (exports(), device("d"));
    let path = publish(&exports, spec("a", &d)).await;
    write(&path, 0, b"something").await.unwrap();
    well("sync").await;
    well(&format!("blkdiscard -o 0 -l 4096 {}", path.display())).await;
    assert!(d.calls().trims > 0, "{:?}", d.calls());
    exports.withdraw(&name("a"), LONG).await.unwrap();
}

async fn a_request_that_takes_too_long_fails_and_the_machine_lives_on() {
    let config =
        KernelConfig { request_timeout: Duration::from_secs(1), connections: 1, ..KernelConfig::default() };
    let (exports, d, hold) = (KernelExports::new(config), device("d"), Hold::default());
    let slow =
        ExportSpec { device: Arc::new(HeldDevice::new(Arc::new(d.clone()), hold.clone())), ..spec("a", &d) };
    let path = publish(&exports, slow).await;
    // The kernel looks at a new device's partitions by itself.
    read(&path, 0).await.unwrap();
    hold.hold();
    read(&path, 1 << 20).await.unwrap_err();
    hold.release();
    let _ = exports.withdraw(&name("a"), LONG).await;
    assert!(attached().await.unwrap().is_empty());
    let again = publish(&exports, ExportSpec { fence: Fence(9), ..spec("b", &device("e")) }).await;
    read(&again, 0).await.unwrap();
    exports.withdraw(&name("b"), LONG).await.unwrap();
}

async fn the_same_export_published_again_changes_nothing() {
    let (exports, d) = (exports(), device("d"));
    let path = publish(&exports, spec("a", &d)).await;
    assert_eq!(publish(&exports, spec("a", &d)).await, path);
    assert_eq!(attached().await.unwrap().len(), 1);
    // Somebody detached it behind our back: it is attached again.
    well(&format!("nbd-client -d {}", path.display())).await;
    let path = publish(&exports, spec("a", &d)).await;
    write(&path, 0, b"back").await.unwrap();
    exports.withdraw(&name("a"), LONG).await.unwrap();
    assert_eq!(&d.bytes()[..4], b"back");
}

async fn sizes_that_have_no_whole_sectors_are_refused() {
    let odd = MemoryDevice::new("odd", ByteSize::new(1000));
    assert_eq!(exports().publish(spec("a", &odd)).await.unwrap_err().kind(), ErrorKind::Invalid);
}
