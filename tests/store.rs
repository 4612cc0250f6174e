//! Where renewable credentials are kept.
