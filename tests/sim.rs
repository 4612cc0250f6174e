//! The simulated Cal.com itself: whether it behaves as FACTS says, so that what is tested against it means something.

mod limiter;
mod requests;
mod tokens;
