//! Limits of consumers and other callers: charges, and the limit for invalid credentials.

mod charge;
