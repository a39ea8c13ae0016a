//! Extents in a file: one a line, offset and length in bytes.

use std::path::Path;

use oma_core::{Error, ErrorKind, Extent, ExtentSet, Result};
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, BufReader};

use oma_examples::failure::read_error;

/// Reads the extents of a file.
pub(crate) async fn read(path: &Path) -> Result<ExtentSet> {
    let failed = |error| read_error("read extents from", path.display(), error);
    let mut lines = BufReader::new(File::open(path).await.map_err(failed)?).lines();
    let mut extents = ExtentSet::new();
    let mut number = 0_u64;
    while let Some(line) = lines.next_line().await.map_err(failed)? {
        number += 1;
        let extent = extent(&line).map_err(|reason| {
            Error::new(ErrorKind::Invalid, "read extents from", path.display())
                .because(format!("line {number}: {reason}"))
        })?;
        extents.insert(extent);
    }
    Ok(extents)
}

fn extent(line: &str) -> Result<Extent, String> {
    let mut words = line.split_ascii_whitespace();
    let (Some(offset), Some(length), None) = (words.next(), words.next(), words.next()) else {
        return Err(format!("{line:?} is not an offset and a length, e.g. `1048576 65536`"));
    };
    let number = |word: &str| word.parse().map_err(|_| format!("{word:?} is not a number of bytes"));
    Extent::new(number(offset)?, number(length)?).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_an_offset_and_a_length() {
        assert_eq!(extent(" 4096\t512 "), Ok(Extent::new(4096, 512).unwrap()));
        for bad in ["", "1", "1 2 3", "a 1", "1 -2", "0 0", "18446744073709551615 1"] {
            assert!(extent(bad).is_err(), "{bad}");
        }
    }
}
