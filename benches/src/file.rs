use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, fadvise, statfs};

/// Bytes that are written at once.
const PIECE: usize = 1 << 20;
/// `TMPFS_MAGIC` of statfs(2).
const TMPFS: i64 = 0x0102_1994;

/// Makes a file unless it is there, whole or not at all.
///
/// # Errors
/// Those of the file system.
pub fn made(path: PathBuf, fill: impl FnOnce(&File) -> io::Result<()>) -> io::Result<PathBuf> {
    if !path.exists() {
        let begun = path.with_extension("new");
        let file = File::create(&begun)?;
        fill(&file)?;
        file.sync_all()?;
        fs::rename(begun, &path)?;
    }
    Ok(path)
}

/// Writes blocks of 4 KiB of which none is zero or like another: each begins with its number, counted from 1.
///
/// # Errors
/// Those of the file system.
pub fn data(mut file: &File, offset: u64, length: u64) -> io::Result<()> {
    file.seek(SeekFrom::Start(offset))?;
    let mut piece: Vec<u8> = (1..=251).cycle().take(PIECE).collect();
    let mut block = offset / 4096 + 1;
    for done in (0..length).step_by(piece.len()) {
        for bytes in piece.chunks_exact_mut(4096) {
            bytes[..8].copy_from_slice(&block.to_le_bytes());
            block += 1;
        }
        let left = usize::try_from(length - done).unwrap_or(usize::MAX);
        file.write_all(&piece[..piece.len().min(left)])?;
    }
    Ok(())
}

/// Throws a file out of the page cache.
///
/// # Errors
/// Those of the file system.
pub fn chill(file: &File) -> io::Result<()> {
    // Only what is written back can be thrown out.
    file.sync_all()?;
    Ok(fadvise(file, 0, None, Advice::DontNeed)?)
}

/// Whether a path lies in a file system that has no disk.
///
/// # Errors
/// There is no such path.
pub fn is_in_memory(path: &Path) -> io::Result<bool> {
    Ok(statfs(path)?.f_type == TMPFS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_block_begins_with_its_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = made(folder.path().join("disk"), |file| data(file, 8192, 8192)).unwrap();
        let content = fs::read(&path).unwrap();
        assert_eq!(content.len(), 16384);
        assert_eq!(content[8192..8200], 3_u64.to_le_bytes());
        assert_eq!(content[12288..12296], 4_u64.to_le_bytes());
        assert!(made(path, |_| Err(io::Error::other("it is there"))).is_ok());
    }
}
