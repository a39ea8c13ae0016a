//! One run: as many workers as requests may be under way, on a runtime of one thread as a connection of the server has it.

use std::cell::Cell;
use std::fs::OpenOptions;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use futures_util::stream::FuturesUnordered;
use oma_benches::{gib, read_from_disk};
use oma_core::traits::{Access, BlockDevice, Durability};
use oma_volume::device::FileDevice;
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Builder;

use crate::course::{BLOCK, Course};
use crate::measure::Sample;
use crate::ring::{Job, Ring};
use crate::row::{Action, Row, Way};
use crate::{Failure, Result};

/// The file that is read and written.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) path: PathBuf,
    pub(crate) blocks: u64,
}

/// Runs a row in one way, on a thread of its own.
pub(crate) fn run(disk: &Disk, row: &Row, way: Way, window: Duration) -> Result<Sample> {
    let run = || -> Result<Sample> {
        let threads = match way {
            Way::Pool(threads) => threads,
            Way::Ring | Way::Alone | Way::Linked => 1,
        };
        let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(threads).build()?;
        runtime.block_on(timed(disk, row, way, window))
    };
    thread::scope(|scope| scope.spawn(run).join()).unwrap_or_else(|_| Err("it panicked".into()))
}

async fn timed(disk: &Disk, row: &Row, way: Way, window: Duration) -> Result<Sample> {
    let device = FileDevice::open(&disk.path, Access::ReadWrite).await?;
    let ring = match way {
        Way::Pool(_) => None,
        Way::Ring | Way::Alone | Way::Linked => {
            let file = OpenOptions::new().read(true).write(true).open(&disk.path)?;
            Some(Ring::new(file, row.depth, way)?)
        }
    };
    let (before, from_disk) = (processor_time(), read_from_disk()?);
    let course = Course::new(disk.blocks, window);
    let number = Cell::new(0);
    let workers = || std::iter::repeat_with(|| number.replace(number.get() + 1)).take(row.depth);
    match &ring {
        None => {
            let pooled = async |_, place, buffer| on_pool(&device, row.action, place, buffer).await;
            let work = |number| work(&course, &device, row.action, number, &pooled);
            workers().map(work).collect::<FuturesUnordered<_>>().try_collect::<()>().await?;
        }
        Some(ring) => {
            let linked = way == Way::Linked;
            let rung =
                async |number, place, buffer| on_ring(ring, row.action, linked, number, place, buffer).await;
            let work = |number| work(&course, &device, row.action, number, &rung);
            ring.drive(workers().map(work).collect()).await?;
        }
    }
    let (elapsed, spent) = (course.elapsed().as_secs_f64(), processor_time() - before);
    let (done, in_place) = course.counts();
    let disk = gib(read_from_disk()? - from_disk) * f64::from(1 << 20) / done;
    Ok(Sample { rate: done / elapsed, cpu: spent / done, in_place: in_place / done, disk })
}

/// Does request after request; what is in memory in place, as the server does.
async fn work(
    course: &Course,
    device: &FileDevice,
    action: Action,
    number: usize,
    wait: &impl AsyncFn(usize, u64, BytesMut) -> Result<BytesMut>,
) -> Result<()> {
    let mut buffer = BytesMut::zeroed(usize::try_from(BLOCK)?);
    let in_place = device.in_place().ok_or("the device does nothing in place")?;
    while let Some(block) = course.next() {
        let (place, stamp) = (block * u64::from(BLOCK), (block + 1).to_le_bytes());
        let ready = match action {
            Action::Hot | Action::Cold => in_place.read(place, &mut buffer)?,
            Action::Durable => {
                buffer[..stamp.len()].copy_from_slice(&stamp);
                false
            }
        };
        if !ready {
            buffer = wait(number, place, buffer).await?;
        }
        if buffer[..stamp.len()] != stamp {
            return Err(format!("block {block} has the content of another").into());
        }
        course.count(ready);
    }
    Ok(())
}

async fn on_pool(device: &FileDevice, action: Action, place: u64, buffer: BytesMut) -> Result<BytesMut> {
    match action {
        Action::Hot | Action::Cold => Ok(device.read_at(place, buffer).await?),
        Action::Durable => {
            let data = buffer.freeze();
            device.write_at(place, data.clone(), Durability::Durable).await?;
            Ok(Bytes::try_into_mut(data).unwrap_or_else(|shared| BytesMut::from(&shared[..])))
        }
    }
}

async fn on_ring(
    ring: &Ring,
    action: Action,
    linked: bool,
    number: usize,
    place: u64,
    buffer: BytesMut,
) -> Result<BytesMut> {
    let job = match (action, linked) {
        (Action::Hot | Action::Cold, _) => Job::Read,
        (Action::Durable, false) => Job::Write,
        (Action::Durable, true) => Job::WriteAndSync,
    };
    ring.run(number, job, place, buffer).await.map_err(Failure::from)
}

/// Processor seconds of this process, of all its threads. Those of the kernel's threads are not its own.
fn processor_time() -> f64 {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(spent).map_or(f64::NAN, |spent| spent.as_secs_f64())
}
