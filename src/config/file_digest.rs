//! Digest of a file's contents, to detect changes.

use std::fs::File;
use std::hash::{DefaultHasher, Hasher as _};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

/// Digest of the contents of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileDigest(u64);

impl FileDigest {
    /// Computes the digest of contents that are already read.
    pub fn of(text: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(text);
        Self(hasher.finish())
    }

    /// Reads a file and computes its digest. Returns `None` if the file cannot be read.
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

/// Path and digest of a file of certificate authorities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaFile(PathBuf, Option<FileDigest>);

impl CaFile {
    /// Reads the file and computes its digest.
    pub fn read(file: Option<&Path>) -> Option<Self> {
        file.map(|path| Self(path.to_owned(), FileDigest::read(path)))
    }
}
