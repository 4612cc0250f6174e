//! Detector of unfinished HTTP/2 field blocks (RFC 9113 §4.3).
//!
//! h2 decodes a block as its frames arrive, and the fields take several times their encoded size. The transport keeps the encoded
//! bytes of an unfinished block instead.

/// Length of a frame's header (RFC 9113 §4.1).
const FRAME_HEADER: usize = 9;

/// Length of the connection preface (RFC 9113 §3.4).
const PREFACE: usize = 24;

const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// Position in the frames that a client sends.
#[derive(Debug)]
pub(super) struct FieldBlocks {
    /// The frame header that is being read.
    header: [u8; FRAME_HEADER],
    filled: usize,
    /// Remaining bytes of the current payload.
    left: usize,
    is_open: bool,
}

impl FieldBlocks {
    /// Creates the detector of a new connection.
    pub(super) fn new() -> Self {
        Self { header: [0; FRAME_HEADER], filled: 0, left: PREFACE, is_open: false }
    }

    /// Returns whether a block has begun and not ended.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Returns whether the next byte begins a frame.
    pub(super) fn is_between_frames(&self) -> bool {
        self.left == 0 && self.filled == 0
    }

    /// Reads `new`, the next bytes of the connection. Returns the number of bytes before an unfinished block.
    pub(super) fn feed(&mut self, new: &[u8]) -> usize {
        let (mut at, mut open_from) = (0, 0);
        while at < new.len() {
            let skipped = self.left.min(new.len() - at);
            self.left -= skipped;
            at += skipped;
            let was_open = self.is_open;
            while let (0, Some(&byte), Some(slot)) = (self.left, new.get(at), self.header.get_mut(self.filled)) {
                *slot = byte;
                at += 1;
                self.filled += 1;
                if self.filled == FRAME_HEADER {
                    self.end_header();
                    break;
                }
            }
            if self.is_open && !was_open {
                open_from = at;
            }
        }
        if self.is_open { open_from } else { new.len() }
    }

    fn end_header(&mut self) {
        let [high, middle, low, kind, flags, ..] = self.header;
        self.filled = 0;
        self.left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        // A frame that is invalid here ends the block, so that h2 rejects it.
        self.is_open = match kind {
            HEADERS => !self.is_open && flags & END_HEADERS == 0,
            CONTINUATION => self.is_open && flags & END_HEADERS == 0,
            _ => false,
        };
    }
}
