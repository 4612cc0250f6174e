//! Bytes that are kept back for a while, in memory that grows with them.

use std::collections::VecDeque;

use tokio::io::ReadBuf;

/// Size of a piece of memory, 2 KiB. A buffer that doubles would cost up to twice its bytes.
const PIECE: usize = 2048;

/// A queue of bytes.
#[derive(Debug, Default)]
pub(super) struct Held {
    pieces: VecDeque<Vec<u8>>,
    /// Bytes of the first piece that were taken already.
    taken: usize,
    length: usize,
}

impl Held {
    /// Returns the number of bytes.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Appends `new`.
    pub(super) fn push(&mut self, mut new: &[u8]) {
        self.length += new.len();
        while !new.is_empty() {
            if self.pieces.back().is_none_or(|last| last.len() == PIECE) {
                self.pieces.push_back(Vec::with_capacity(PIECE));
            }
            let Some(last) = self.pieces.back_mut() else { return };
            let (fits, rest) = new.split_at(new.len().min(PIECE - last.len()));
            last.extend_from_slice(fits);
            new = rest;
        }
    }

    /// Moves at most `most` bytes into `buf`. Returns how many.
    pub(super) fn take(&mut self, buf: &mut ReadBuf<'_>, most: usize) -> usize {
        let mut left = most.min(buf.remaining());
        let before = self.length;
        while let Some(first) = self.pieces.front().filter(|_| left > 0) {
            let bytes = first.get(self.taken..).unwrap_or_default();
            let n = bytes.len().min(left);
            buf.put_slice(bytes.get(..n).unwrap_or_default());
            (self.taken, self.length, left) = (self.taken + n, self.length - n, left - n);
            if self.taken == first.len() {
                self.pieces.pop_front();
                self.taken = 0;
            }
        }
        before - self.length
    }
}
