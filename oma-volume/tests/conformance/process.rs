//! What takes a second process: locks that end with it, limits that hold for it alone.

use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use oma_core::conformance::{self, BackendSubject, Requirement, TOO_LARGE, Trial, sample};
use oma_core::traits::{
    Access, BlockDevice, Durability, Provisioning, SnapshotSpec, Snapshots, VolumeBackend, VolumeSpec,
    Zeroing,
};
use oma_core::{ByteSize, ErrorKind, Extent, Retry, VolumeId};
use oma_volume::device::FileDevice;
use tempfile::TempDir;

use super::backend::{left, open, spec};
use super::{device, reflink};

/// Set for a child of ours: what it shall do, and with which path.
const ROLE: &str = "OMA_TEST_CHILD";
const PATH: &str = "OMA_TEST_CHILD_PATH";

pub(crate) fn trials() -> Vec<Trial> {
    let namespaces =
        Command::new("unshare").args(["-rm", "true"]).output().is_ok_and(|done| done.status.success());
    let small = [Requirement::Program("mount"), Requirement::Feature("unshare", namespaces)];
    let shell = [Requirement::Program("sh")];
    vec![
        conformance::trial("file_device::l06_another_process_keeps_others_out_until_it_ends", &shell, locked),
        conformance::trial(
            "file_device::a_limit_of_file_size_is_no_space_and_says_what_to_do",
            &shell,
            limited,
        ),
        conformance::trial(
            "file_backend::l15_killed_before_any_of_its_calls_it_loses_nothing_and_leaves_nothing",
            &[Requirement::Program("strace")],
            killed,
        ),
        conformance::trial("file_backend::a_small_file_system_is_no_space_and_nothing_is_left", &small, full),
        on_shared_blocks("btrfs", "mkfs.btrfs"),
        on_shared_blocks("xfs", "mkfs.xfs"),
    ]
}

/// The suite on a file system whose files can share blocks: it is made in a file and mounted for one process.
fn on_shared_blocks(name: &'static str, make: &'static str) -> Trial {
    let mounts = Command::new("unshare").args(["-m", "losetup", "--find"]).output();
    let loops = mounts.is_ok_and(|done| done.status.success());
    let needs = [Requirement::Program(make), Requirement::Feature("mounting a loop device", loops)];
    let label = format!("file_backend::on_{name}_a_snapshot_shares_its_blocks_and_keeps_every_promise");
    conformance::trial(&label, &needs, move || async move {
        let folder = TempDir::new().unwrap();
        let script = format!(
            "truncate -s 400M \"$1.fs\" && {make} -q \"$1.fs\" && mount -o loop \"$1.fs\" \"$1\" && exec \"$0\""
        );
        let place = folder.path().join("mounted");
        std::fs::create_dir(&place).unwrap();
        let child = spawn("shared", place.to_str().unwrap(), &["unshare", "-m", "sh"], &script);
        let done = child.wait_with_output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    })
}

/// Runs as a child, when it is one.
pub(crate) fn child() -> Option<ExitCode> {
    let role = env::var(ROLE).ok()?;
    let path = env::var(PATH).ok()?;
    match role.as_str() {
        "hold" => Some(hold(&path)),
        "limited" => Some(write_beyond_the_limit(&path)),
        "live" => Some(one_thread().block_on(life(Path::new(&path)))),
        "full" => Some(full_suite(path)),
        "shared" => Some(shared_suite(path)),
        #[cfg(feature = "loopdev")]
        "loop" => Some(one_thread().block_on(super::loopdev::life(Path::new(&path)))),
        _ => None,
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// strace counts each sort of call of each thread by itself.
fn one_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).enable_all().build().unwrap()
}

/// Starts this program as a child, in a shell that prepares its world: `exec "$0"` is the child, `$1` the path.
fn spawn(role: &str, path: &str, shell: &[&str], script: &str) -> Child {
    let this = env::current_exe().unwrap();
    let mut command = Command::new(shell[0]);
    command.args(&shell[1..]).args(["-c", script]).arg(this).arg(path);
    command.env(ROLE, role).env(PATH, path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

fn disk() -> (TempDir, String) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("disk.raw");
    std::fs::File::create(&path).unwrap().set_len(1 << 20).unwrap();
    (folder, path.display().to_string())
}

async fn locked() {
    let (_folder, path) = disk();
    let mut child = spawn("hold", &path, &["sh"], "exec \"$0\"");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "held\n");
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let error = FileDevice::open(&path, access).await.unwrap_err();
        assert_eq!((error.kind(), error.retry()), (ErrorKind::Busy, Retry::Later), "{}", error.chain());
    }
    child.kill().unwrap();
    child.wait().unwrap();
    FileDevice::open(&path, Access::ReadWrite).await.unwrap();
}

fn hold(path: &str) -> ExitCode {
    let _device = runtime().block_on(FileDevice::open(path, Access::ReadWrite)).unwrap();
    let mut out = std::io::stdout();
    out.write_all(b"held\n").and_then(|()| out.flush()).unwrap();
    // Until the parent ends it, or is gone itself.
    let _ = std::io::stdin().read(&mut [0]);
    ExitCode::SUCCESS
}

async fn limited() {
    let (_folder, path) = disk();
    // Blocks of 512 bytes; the signal is ignored, so that the call fails instead.
    let mut child = spawn("limited", &path, &["sh"], "trap '' XFSZ; ulimit -f 128; exec \"$0\"");
    assert!(child.wait().unwrap().success());
}

fn write_beyond_the_limit(path: &str) -> ExitCode {
    runtime().block_on(async {
        let device = FileDevice::open(path, Access::ReadWrite).await.unwrap();
        device.write_at(0, Bytes::from(vec![1; 4096]), Durability::Cached).await.unwrap();
        let error =
            device.write_at(512 << 10, Bytes::from(vec![1; 4096]), Durability::Cached).await.unwrap_err();
        assert_eq!((error.kind(), error.retry()), (ErrorKind::NoSpace, Retry::Never));
        assert!(error.chain().contains("free some, then run again"), "{}", error.chain());
    });
    ExitCode::SUCCESS
}

/// Kills a child before the first, the second, the third … call of each sort that changes something.
async fn killed() {
    let folder = TempDir::new().unwrap();
    let mut kills = 0;
    for call in ["renameat", "unlinkat", "ftruncate", "fallocate", "fsync"] {
        let mut nth = 1;
        while !lives(folder.path(), &format!("inject={call}:signal=KILL:when={nth}")) {
            kills += 1;
            nth += 1;
            nothing_lost_nothing_left(folder.path(), &format!("{call} {nth}")).await;
        }
    }
    assert!((40..150).contains(&kills), "the child was killed {kills} times");
}

/// Whether a child came to its end.
fn lives(place: &Path, inject: &str) -> bool {
    lives_as("live", place, inject)
}

pub(crate) fn lives_as(role: &str, place: &Path, inject: &str) -> bool {
    let shell = ["strace", "-f", "-qqq", "-o", "/dev/null", "-e", inject, "sh"];
    spawn(role, place.to_str().unwrap(), &shell, "exec \"$0\"").wait().unwrap().success()
}

async fn nothing_lost_nothing_left(place: &Path, moment: &str) {
    let (backend, spec) = (open(place), spec());
    let seen: Vec<_> = backend.list(&spec.tag.instance).try_collect().await.unwrap();
    for volume in &seen {
        assert_eq!(backend.get(&volume.id).await.unwrap().as_ref(), Some(volume), "{moment}");
    }
    let volume = backend.create(&spec).await.unwrap();
    let snapshot = snapshot(&spec, 1);
    for seen in backend.snapshots(&volume.id).try_collect::<Vec<_>>().await.unwrap() {
        assert_eq!(seen.spec, snapshot, "{moment}");
        backend.open_snapshot(&seen.spec).await.unwrap();
    }
    backend.snapshot(&snapshot).await.unwrap();
    backend.delete_snapshot(&snapshot).await.unwrap();
    backend.delete(&volume.id, &spec.tag).await.unwrap();
    let left = left(place);
    assert!(left.is_empty(), "{moment} left {left:?}");
}

/// All that happens to a volume in more than one step.
async fn life(place: &Path) -> ExitCode {
    let (backend, spec) = (open(place), spec());
    let volume = backend.create(&spec).await.unwrap();
    backend.snapshot(&snapshot(&spec, 1)).await.unwrap();
    backend.resize(&volume.id, &spec.tag, ByteSize::mib(2)).await.unwrap();
    backend.revert(&volume.id, &spec.tag, &snapshot(&spec, 1)).await.unwrap();
    backend.delete_snapshot(&snapshot(&spec, 1)).await.unwrap();
    backend.delete(&volume.id, &spec.tag).await.unwrap();
    ExitCode::SUCCESS
}

async fn full() {
    let folder = TempDir::new().unwrap();
    // One case at a time: what one asks for in vain is missing to the others meanwhile.
    let script = "mount -t tmpfs -o size=8m none \"$1\" && exec \"$0\" --test-threads=1";
    let place = folder.path().display().to_string();
    let child = spawn("full", &place, &["unshare", "-rm", "sh"], script);
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
}

/// The suites over a file system of 8 MiB, which is also one without `RWF_NOWAIT` and `FALLOC_FL_ZERO_RANGE`.
fn full_suite(path: String) -> ExitCode {
    let place: &'static Path = Path::new(path.leak());
    let factory = move || async move {
        let folder = TempDir::new_in(place).unwrap();
        let (backend, second) = (Arc::new(open(folder.path())), Arc::new(open(folder.path())));
        BackendSubject { backend, second, guard: Box::new(folder) }
    };
    let mut trials = conformance::cases("full", &conformance::full_backend_cases(), factory);
    trials.extend(conformance::cases("tmpfs", &conformance::block_device_cases(), move || async move {
        device::subject(TempDir::new_in(place).unwrap(), Access::ReadWrite).await
    }));
    trials.push(conformance::trial("full::nothing_is_left_where_there_was_no_room", &[], move || {
        nothing_left(place)
    }));
    trials.push(conformance::trial("full::a_device_without_room", &[], move || device_without_room(place)));
    trials.push(conformance::trial(
        "full::a_snapshot_can_be_deleted_when_there_is_no_room_left",
        &[],
        move || deleted_without_room(place),
    ));
    conformance::run(trials)
}

/// The suite of backends on a file system whose files can share blocks.
fn shared_suite(path: String) -> ExitCode {
    let place: &'static Path = Path::new(path.leak());
    let cases = conformance::volume_backend_cases();
    let mut trials = conformance::cases("shared", &cases, move || async move {
        let folder = TempDir::new_in(place).unwrap();
        let (backend, second) = (Arc::new(open(folder.path())), Arc::new(open(folder.path())));
        BackendSubject { backend, second, guard: Box::new(folder) }
    });
    let instant = move || shares_blocks(place);
    trials.push(conformance::trial("shared::a_snapshot_takes_no_room_of_its_own", &[], instant));
    trials.extend(reflink::trials(place));
    conformance::run(trials)
}

async fn shares_blocks(place: &Path) {
    let folder = TempDir::new_in(place).unwrap();
    let backend = open(folder.path());
    assert_eq!(backend.capabilities().snapshots, Snapshots::Instant);
    let spec = VolumeSpec { capacity: ByteSize::mib(32), provisioning: Provisioning::Thin, ..spec() };
    let volume = backend.create(&spec).await.unwrap();
    backend.attach(&volume.id, &spec.tag).await.unwrap();
    let device = backend.open(&volume.id, &spec.tag, Access::ReadWrite).await.unwrap();
    device.write_at(0, sample(0, 32 << 20), Durability::Durable).await.unwrap();
    drop(device);
    // More copies than the file system has room for.
    for number in 0..40 {
        backend.snapshot(&snapshot(&spec, number)).await.unwrap();
    }
    backend.revert(&volume.id, &spec.tag, &snapshot(&spec, 39)).await.unwrap();
    let device = backend.open(&volume.id, &spec.tag, Access::ReadOnly).await.unwrap();
    let content = device.read_at(0, BytesMut::zeroed(32 << 20)).await.unwrap();
    assert!(content == sample(0, 32 << 20));
}

/// The same in parent and child.
pub(crate) fn snapshot(of: &VolumeSpec, number: u32) -> SnapshotSpec {
    SnapshotSpec {
        id: format!("snap-job-1-{number}").parse().unwrap(),
        volume: VolumeId::of_operation(&of.operation),
        tag: of.tag.clone(),
        job: "job-1".parse().unwrap(),
    }
}

async fn nothing_left(place: &Path) {
    let folder = TempDir::new_in(place).unwrap();
    let backend = open(folder.path());
    let large = VolumeSpec { capacity: TOO_LARGE, ..spec() };
    assert_eq!(backend.create(&large).await.unwrap_err().kind(), ErrorKind::NoSpace);
    assert!(left(folder.path()).is_empty());
    let volume = backend.create(&spec()).await.unwrap();
    assert!(backend.resize(&volume.id, &large.tag, TOO_LARGE).await.is_err());
    let image = folder.path().join(format!("{}.raw", volume.id));
    assert_eq!(image.metadata().unwrap().len(), volume.capacity.bytes());
}

/// What takes up the room must be able to go.
async fn deleted_without_room(place: &Path) {
    let folder = TempDir::new_in(place).unwrap();
    let (backend, spec) = (open(folder.path()), spec());
    let volume = backend.create(&spec).await.unwrap();
    backend.attach(&volume.id, &spec.tag).await.unwrap();
    let device = backend.open(&volume.id, &spec.tag, Access::ReadWrite).await.unwrap();
    device.write_at(0, sample(0, 1 << 20), Durability::Durable).await.unwrap();
    drop(device);
    backend.snapshot(&snapshot(&spec, 1)).await.unwrap();
    let mut ballast = std::fs::File::create(folder.path().join("ballast")).unwrap();
    // Down to the last byte: not even the smallest file can be made.
    for piece in [1 << 20, 4096, 1] {
        while ballast.write_all(&vec![1; piece]).is_ok() {}
    }
    let error = backend.snapshot(&snapshot(&spec, 2)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{}", error.chain());
    let deleted = backend.delete_snapshot(&snapshot(&spec, 1)).await;
    deleted.unwrap_or_else(|error| panic!("{}", error.chain()));
    let left: Vec<_> = backend.snapshots(&volume.id).try_collect().await.unwrap();
    assert!(left.is_empty(), "{left:?}");
}

async fn device_without_room(place: &Path) {
    let folder = TempDir::new_in(place).unwrap();
    let path = folder.path().join("disk.raw");
    std::fs::File::create(&path).unwrap().set_len(64 << 20).unwrap();
    let device = FileDevice::open(&path, Access::ReadWrite).await.unwrap();
    let large = Extent::new(0, 64 << 20).unwrap();
    let error = device.write_zeroes(large, Zeroing::Allocate, Durability::Cached).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{}", error.chain());
    device.write_zeroes(large, Zeroing::Punch, Durability::Cached).await.expect("punching makes room");
}
