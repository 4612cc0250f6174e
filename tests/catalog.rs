//! Catalog: canonical paths, lookup, files, and the import of Cal.com's API document.

mod diff;
mod file;
mod further;
mod import;
mod lookup;
mod path;
mod tag;
mod version;
