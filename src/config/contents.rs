//! What a file holds, told from what else it may hold later.

use std::fs::File;
use std::hash::{DefaultHasher, Hasher as _};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

/// Tells the contents of a file from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contents(u64);

impl Contents {
    /// Those of a file whose text is at hand.
    pub fn of(text: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(text);
        Self(hasher.finish())
    }

    /// Those of a file as it is now; `None` where it cannot be read.
    pub fn read(path: &Path) -> Option<Self> {
        let mut contents = BufReader::new(File::open(path).ok()?);
        let mut hasher = DefaultHasher::new();
        loop {
            let part = contents.fill_buf().ok()?;
            if part.is_empty() {
                return Some(Self(hasher.finish()));
            }
            hasher.write(part);
            let read = part.len();
            contents.consume(read);
        }
    }
}

/// A file of certificate authorities: where it is, and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority(PathBuf, Option<Contents>);

impl Authority {
    /// The file as it is now.
    pub fn of(file: Option<&Path>) -> Option<Self> {
        file.map(|path| Self(path.to_owned(), Contents::read(path)))
    }
}
