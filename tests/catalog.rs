//! The catalog: canonical paths, look-up, and how it is made from Cal.com's document.

mod diff;
mod file;
mod further;
mod import;
mod lookup;
mod path;
mod tag;
mod version;
