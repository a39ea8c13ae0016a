//! Disks for demonstrations, tests and benchmarks: data, written zeroes and holes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use oma_core::ByteSize;

const STRIPE: usize = 1 << 20;

/// What a sample disk is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SampleDisk {
    /// Bytes that nothing compresses and no two blocks share.
    pub data: ByteSize,
    /// Zeroes that were written.
    pub zeroes: ByteSize,
    /// Bytes that were never written.
    pub holes: ByteSize,
}

impl SampleDisk {
    /// Makes a raw image: in stripes of 1 MiB half data, a quarter written zeroes, a quarter holes.
    ///
    /// # Errors
    /// When the file exists or cannot be written.
    pub fn make(path: &Path, size: ByteSize, seed: u64) -> io::Result<Self> {
        let file = File::create_new(path)?;
        file.set_len(size.bytes())?;
        let mut made = Self::default();
        let mut offset = 0;
        while offset < size.bytes() {
            let length = usize::try_from(size.bytes() - offset).map_or(STRIPE, |rest| rest.min(STRIPE));
            let bytes = u64::try_from(length).map_err(io::Error::other)?;
            let share = match (offset >> 20) % 4 {
                0 | 1 => {
                    file.write_all_at(&noise(seed.wrapping_add(offset), length), offset)?;
                    &mut made.data
                }
                2 => {
                    file.write_all_at(&vec![0; length], offset)?;
                    &mut made.zeroes
                }
                _ => &mut made.holes,
            };
            *share += ByteSize::new(bytes);
            offset += bytes;
        }
        Ok(made)
    }
}

/// Bytes that look random; the same seed gives the same (SplitMix64).
#[must_use]
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut state = seed;
    for word in bytes.chunks_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word.copy_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes()[..word.len()]);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_disk_has_data_zeroes_and_holes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.raw");
        let made = SampleDisk::make(&path, ByteSize::mib(8), 1).unwrap();
        let expected =
            SampleDisk { data: ByteSize::mib(4), zeroes: ByteSize::mib(2), holes: ByteSize::mib(2) };
        assert_eq!(made, expected);
        let about = path.metadata().unwrap();
        assert_eq!((about.len(), about.blocks() * 512), (8 << 20, 6 << 20));
        assert!(SampleDisk::make(&path, ByteSize::mib(8), 1).is_err(), "it must not be written over");
    }

    #[test]
    fn noise_is_the_same_for_the_same_seed_only() {
        assert_eq!(noise(7, 100), noise(7, 100));
        assert_ne!(noise(7, 100), noise(8, 100));
        assert_eq!(noise(7, 3).len(), 3);
    }
}
