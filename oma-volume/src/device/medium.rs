//! Blocking calls on an open file or block device.

use std::fs::{File, FileTimes};
use std::io::{self, IoSlice, IoSliceMut};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use oma_core::Extent;
use oma_core::traits::{Access, Durability, Zeroing};
use rustix::fs::{Advice, FallocateFlags, SeekFrom, fadvise, fallocate, fstat, fstatfs, seek};
use rustix::io::{Errno, ReadWriteFlags, preadv2, pwritev2, retry_on_intr};

use super::cached::is_cached;
use super::durable::DurableWrites;
use super::error::DeviceError;
use super::flushes::Flushes;
use super::hashes::Direct;
use super::locks::{lock, unlock};
use super::queue::Queue;
use super::ranges::Ranges;
use super::write_out::WriteBehind;

/// File systems by their number in linux/magic.h: tmpfs; ext2 to ext4, XFS, Btrfs.
const IN_MEMORY: [i128; 1] = [0x0102_1994];
const LOCAL: [i128; 3] = [0xef53, 0x5846_5342, 0x9123_683e];
/// Block devices zero and discard in units that divide this.
const DEVICE_UNIT: u64 = 4096;
static ZEROES: [u8; 1 << 16] = [0; 1 << 16];

type Result<T, E = DeviceError> = std::result::Result<T, E>;

#[derive(Debug)]
pub(super) struct Medium {
    pub(super) file: File,
    pub(super) path: PathBuf,
    /// What the kernel made the block device of, when it did.
    pub(super) image: Option<File>,
    /// Who it is, however it was reached.
    pub(super) identity: String,
    pub(super) capacity: u64,
    pub(super) sort: Sort,
    pub(super) home: Home,
    pub(super) queue: Queue,
    /// A run of data that was found last.
    pub(super) data_run: Mutex<Option<Extent>>,
    pub(super) direct: Direct,
    ranges: Ranges,
    pub(super) flushes: Flushes,
    pub(super) durable: DurableWrites,
    pub(super) behind: WriteBehind,
    /// The file system refused `RWF_NOWAIT`.
    waits: AtomicBool,
    /// The kernel does not tell what is in the page cache.
    untold: AtomicBool,
    /// Written since the last flush.
    changed: AtomicBool,
    /// A flush failed: the kernel marks pages clean that it could not write, so a later one would succeed and prove nothing.
    lost: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    Regular,
    BlockDevice,
}

/// How long a call may take that only touches the page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Home {
    /// There is nothing but the page cache.
    Memory,
    /// A write waits at most until dirty pages went to a local disk.
    Local,
    /// Another machine or a program of the user may be asked.
    Elsewhere,
}

impl Home {
    fn of(file: &File, sort: Sort) -> Result<Self> {
        let number = i128::from(fstatfs(file)?.f_type);
        Ok(match sort {
            Sort::Regular if IN_MEMORY.contains(&number) => Self::Memory,
            Sort::Regular if LOCAL.contains(&number) => Self::Local,
            Sort::Regular | Sort::BlockDevice => Self::Elsewhere,
        })
    }
}

/// How much of a read could be had without waiting.
pub(super) enum Ready {
    All,
    Part(usize),
}

impl Medium {
    /// Takes an open file and locks it: readers share, a writer is alone (L06). The locks are the open file's, so they end
    /// with the last call under way on it, and with the process.
    pub(super) fn new(file: File, path: PathBuf, access: Access) -> Result<Self> {
        let about = file.metadata()?;
        let sort = match about.file_type() {
            sort if sort.is_file() => Sort::Regular,
            sort if sort.is_block_device() => Sort::BlockDevice,
            sort if sort.is_dir() => return Err(DeviceError::NotADisk("folder")),
            sort if sort.is_char_device() => return Err(DeviceError::NotADisk("character device")),
            sort if sort.is_fifo() => return Err(DeviceError::NotADisk("pipe")),
            _ => return Err(DeviceError::NotADisk("socket")),
        };
        lock(&file, access)?;
        let (identity, capacity) = match sort {
            Sort::Regular => (format!("file:{}:{}", about.dev(), about.ino()), file.metadata()?.len()),
            Sort::BlockDevice => (format!("block:{}", about.rdev()), seek(&file, SeekFrom::End(0))?),
        };
        if capacity == 0 {
            return Err(DeviceError::Empty);
        }
        let home = Home::of(&file, sort)?;
        let [waits, untold, changed, lost] = [false; 4].map(AtomicBool::new);
        Ok(Self {
            file,
            path,
            image: None,
            identity,
            capacity,
            sort,
            home,
            queue: Queue::of(&about, sort),
            data_run: Mutex::default(),
            direct: Direct::default(),
            ranges: Ranges::default(),
            flushes: Flushes::default(),
            durable: DurableWrites::default(),
            behind: WriteBehind::default(),
            waits,
            untold,
            changed,
            lost,
        })
    }

    /// Reads what is in memory already.
    pub(super) fn read_ready(&self, offset: u64, buffer: &mut [u8]) -> Result<Ready> {
        if self.home == Home::Memory {
            return self.read(offset, buffer).map(|()| Ready::All);
        }
        if self.waits.load(Ordering::Relaxed) {
            return Ok(Ready::Part(0));
        }
        let length = buffer.len();
        match preadv2(&self.file, &mut [IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT) {
            Ok(count) if count == length => Ok(Ready::All),
            Ok(count) => Ok(Ready::Part(count)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(Ready::Part(0)),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                self.waits.store(true, Ordering::Relaxed);
                Ok(Ready::Part(0))
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        match self.file.read_exact_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                // Somebody may have made it longer again in the meantime; short it was.
                let end = self.file.metadata().map_or(0, |about| about.len());
                Err(DeviceError::EndedEarly { end, capacity: self.capacity })
            }
            other => Ok(other?),
        }
    }

    pub(super) fn write(&self, extent: Extent, data: &[u8], durability: Durability) -> Result<()> {
        let _taken = self.ranges.take(extent);
        self.change(|| self.write_taken(extent.offset(), data, durability))
    }

    /// Changes an extent of the file in another way than by writing to it.
    pub(super) fn changing<T>(&self, extent: Extent, call: impl FnOnce(&File) -> Result<T>) -> Result<T> {
        let _taken = self.ranges.take(extent);
        let done = self.change(|| call(&self.file))?;
        self.durable.note_unflushed();
        Ok(done)
    }

    /// Whether the file reaches to the end of an extent.
    pub(super) fn has_all(&self, extent: Extent) -> Result<bool> {
        Ok(self.sort == Sort::BlockDevice || self.end()? >= extent.end())
    }

    /// Whether an extent is in the page cache; `false` when nobody can tell.
    pub(super) fn is_cached(&self, extent: Extent) -> bool {
        if self.untold.load(Ordering::Relaxed) {
            return false;
        }
        is_cached(&self.file, extent).unwrap_or_else(|| {
            self.untold.store(true, Ordering::Relaxed);
            false
        })
    }

    /// Writes to the page cache; `None` while another change overlaps.
    pub(super) fn write_ready(&self, extent: Extent, data: &[u8]) -> Option<Result<()>> {
        let _taken = self.ranges.try_take(extent)?;
        Some(self.change(|| self.write_taken(extent.offset(), data, Durability::Cached)))
    }

    fn write_taken(&self, mut offset: u64, mut data: &[u8], durability: Durability) -> Result<()> {
        let mut failed = None;
        if durability == Durability::Durable {
            let this = self.durable.begin();
            if this.shares() {
                self.file.write_all_at(data, offset)?;
                return self.flush();
            }
            loop {
                match pwritev2(&self.file, &[IoSlice::new(data)], offset, ReadWriteFlags::DSYNC) {
                    Ok(count) if count == data.len() => return Ok(()),
                    Ok(count) => (offset, data) = (offset + bytes(count), &data[count..]),
                    Err(Errno::INTR) => {}
                    Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => break,
                    // It may tell of other pages, and no later flush would tell of them again.
                    Err(Errno::IO) => return Err(self.lose(Errno::IO.into())),
                    Err(error) => {
                        failed = Some(error);
                        break;
                    }
                }
            }
        }
        self.file.write_all_at(data, offset)?;
        match failed {
            // The write itself can be done, so it was the disk that had no room: for these pages or for others (thin volumes).
            Some(error) => Err(self.lose(error.into())),
            None => self.settle(durability),
        }
    }

    pub(super) fn zero(&self, extent: Extent, zeroing: Zeroing, durability: Durability) -> Result<()> {
        let _taken = self.ranges.take(extent);
        self.change(|| self.zero_taken(extent, zeroing, durability))
    }

    fn zero_taken(&self, extent: Extent, zeroing: Zeroing, durability: Durability) -> Result<()> {
        let done = self.deallocate(extent, zeroing)?;
        self.zero_rest(extent, done, durability)
    }

    /// Zeroes without writing, but for the ends of an extent that are no whole units.
    pub(super) fn zero_fast(&self, extent: Extent, zeroing: Zeroing, durability: Durability) -> Result<()> {
        // Told to keep the space, the kernel writes the zeroes of a block device that has no command for them.
        if self.sort == Sort::BlockDevice && (zeroing == Zeroing::Allocate || !self.queue.can_zero) {
            return Err(DeviceError::NotFast);
        }
        let _taken = self.ranges.take(extent);
        self.change(|| match self.deallocate(extent, zeroing)? {
            Some(done) => self.zero_rest(extent, Some(done), durability),
            None => Err(DeviceError::NotFast),
        })
    }

    /// Zeroes the whole units of an extent without writing; `None` when that cannot be done, and nothing was.
    fn deallocate(&self, extent: Extent, zeroing: Zeroing) -> Result<Option<Extent>> {
        let mode = match zeroing {
            Zeroing::Punch => FallocateFlags::PUNCH_HOLE,
            Zeroing::Allocate => FallocateFlags::ZERO_RANGE,
        };
        match self.whole_units(extent) {
            Some(whole) if self.allocate(whole, mode)? => Ok(Some(whole)),
            _ => Ok(None),
        }
    }

    /// Writes the zeroes of an extent but for those that are there.
    fn zero_rest(&self, extent: Extent, done: Option<Extent>, durability: Durability) -> Result<()> {
        let (start, end) = done.map_or((extent.end(), extent.end()), |done| (done.offset(), done.end()));
        for rest in [Extent::between(extent.offset(), start), Extent::between(end, extent.end())] {
            self.write_zeroes(rest)?;
        }
        self.settle(durability)
    }

    /// Gives space back where that is possible.
    pub(super) fn trim(&self, extent: Extent) -> Result<()> {
        let _taken = self.ranges.take(extent);
        let Some(whole) = self.whole_units(extent) else { return Ok(()) };
        self.change(|| self.allocate(whole, FallocateFlags::PUNCH_HOLE).map(|_| ()))
    }

    /// Lets the kernel read ahead; it may do less.
    pub(super) fn cache(&self, extent: Extent) -> Result<()> {
        match fadvise(&self.file, extent.offset(), NonZeroU64::new(extent.length()), Advice::WillNeed) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Notes a change when it is over, so that no flush that began before forgets it.
    fn change<T>(&self, call: impl FnOnce() -> Result<T>) -> Result<T> {
        self.check_end()?;
        let done = call();
        self.changed.store(true, Ordering::Release);
        done
    }

    pub(super) fn flush(&self) -> Result<()> {
        self.flushes.join(|| self.flush_alone())
    }

    fn flush_alone(&self) -> Result<()> {
        if self.lost.load(Ordering::Acquire) {
            return Err(DeviceError::FlushFailed);
        }
        self.check_end()?;
        let changed = self.changed.swap(false, Ordering::AcqRel);
        self.durable.note_flush();
        let synced = match (changed, self.sort, &self.image) {
            (true, Sort::Regular, _) => self.stamp(&self.file),
            // What is written to the image meanwhile gives it its time: ours comes last.
            (true, Sort::BlockDevice, Some(image)) => self.file.sync_data().and_then(|()| self.stamp(image)),
            (true, Sort::BlockDevice, None) | (false, ..) => self.file.sync_data(),
        };
        synced.map_err(|error| self.lose(error))
    }

    /// Moves the modification time on, durably. The kernel's own has the grain of its timer, 4 ms, before Linux 6.13: two writes in
    /// one tick would leave one content stamp.
    fn stamp(&self, file: &File) -> io::Result<()> {
        let last = file.metadata()?.modified()?;
        let now = SystemTime::now().max(last + Duration::from_micros(1));
        if let Err(error) = file.set_times(FileTimes::new().set_modified(now)) {
            // Only the owner may; for others the kernel's own time has to do.
            tracing::debug!(path = %self.path.display(), %error, "the modification time stays the kernel's");
        }
        // Not fdatasync: a power cut would bring an older modification time back, and with it another content stamp.
        file.sync_all()
    }

    fn settle(&self, durability: Durability) -> Result<()> {
        match durability {
            Durability::Cached => {
                self.durable.note_unflushed();
                Ok(())
            }
            Durability::Durable => self.file.sync_data().map_err(|error| self.lose(error)),
        }
    }

    /// Remembers that nothing is known of earlier writes any more.
    pub(super) fn lose(&self, error: io::Error) -> DeviceError {
        self.lost.store(true, Ordering::Release);
        DeviceError::Flush(error)
    }

    /// A file that was cut off must not be made longer again by writing: the part between would read as zero (L11).
    fn check_end(&self) -> Result<()> {
        if self.sort == Sort::BlockDevice {
            return Ok(());
        }
        let end = self.end()?;
        if end < self.capacity {
            return Err(DeviceError::EndedEarly { end, capacity: self.capacity });
        }
        Ok(())
    }

    /// Where the file ends. It is asked for at every request: `fstat` takes half as long as `statx`.
    fn end(&self) -> Result<u64> {
        Ok(u64::try_from(fstat(&self.file)?.st_size).unwrap_or(0))
    }

    /// The part of an extent that the medium can zero without writing.
    fn whole_units(&self, extent: Extent) -> Option<Extent> {
        match self.sort {
            Sort::Regular => Some(extent),
            Sort::BlockDevice => Extent::between(
                extent.offset().next_multiple_of(DEVICE_UNIT),
                extent.end() / DEVICE_UNIT * DEVICE_UNIT,
            ),
        }
    }

    /// Whether the file system or the device could do it.
    fn allocate(&self, extent: Extent, mode: FallocateFlags) -> Result<bool> {
        let mode = mode | FallocateFlags::KEEP_SIZE;
        let done = retry_on_intr(|| fallocate(&self.file, mode, extent.offset(), extent.length()));
        self.forget_data_run();
        match done {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn write_zeroes(&self, extent: Option<Extent>) -> Result<()> {
        for piece in extent.into_iter().flat_map(|extent| extent.pieces(bytes(ZEROES.len()))) {
            let length = usize::try_from(piece.length()).expect("a piece is no longer than ZEROES");
            self.file.write_all_at(&ZEROES[..length], piece.offset())?;
        }
        Ok(())
    }
}

impl Drop for Medium {
    /// Closing alone is not enough: a program that is just being started has a copy of every open file until it is loaded,
    /// and the lock would last as long.
    fn drop(&mut self) {
        unlock(&self.file);
    }
}

fn bytes(count: usize) -> u64 {
    u64::try_from(count).expect("a buffer is smaller than 2^64")
}
