//! Tests of forwarding, through the program: retries, filtered responses, and streaming.

mod answers;
mod broken;
mod cal_com;
mod client;
mod connections;
mod egress;
mod hop;
mod http2;
mod names;
mod resolve;
mod retries;
mod uploads;
