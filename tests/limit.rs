//! May they now: buckets, tables of buckets, and what a take consumes.

mod take;
