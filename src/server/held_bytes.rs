//! Queue of held bytes whose memory grows with its content.

use std::collections::VecDeque;

use tokio::io::ReadBuf;

/// Size of an allocation, 2 KiB. A buffer that doubles would take up to twice its content.
const CHUNK_BYTES: usize = 2048;

/// A queue of bytes.
#[derive(Debug, Default)]
pub(super) struct HeldBytes {
    chunks: VecDeque<Vec<u8>>,
    /// Bytes of the first chunk that were taken already.
    taken: usize,
    length: usize,
}

impl HeldBytes {
    /// Returns the number of bytes.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Appends `new`.
    pub(super) fn push(&mut self, mut new: &[u8]) {
        self.length += new.len();
        while !new.is_empty() {
            if self.chunks.back().is_none_or(|last| last.len() == CHUNK_BYTES) {
                self.chunks.push_back(Vec::with_capacity(CHUNK_BYTES));
            }
            let Some(last) = self.chunks.back_mut() else { return };
            let (fits, rest) = new.split_at(new.len().min(CHUNK_BYTES - last.len()));
            last.extend_from_slice(fits);
            new = rest;
        }
    }

    /// Moves at most `max` bytes into `buf`. Returns the number of bytes.
    pub(super) fn take(&mut self, buf: &mut ReadBuf<'_>, max: usize) -> usize {
        let mut left = max.min(buf.remaining());
        let before = self.length;
        while let Some(first) = self.chunks.front().filter(|_| left > 0) {
            let bytes = first.get(self.taken..).unwrap_or_default();
            let n = bytes.len().min(left);
            buf.put_slice(bytes.get(..n).unwrap_or_default());
            (self.taken, self.length, left) = (self.taken + n, self.length - n, left - n);
            if self.taken == first.len() {
                self.chunks.pop_front();
                self.taken = 0;
            }
        }
        before - self.length
    }
}
