//! The way to Cal.com and back, through the program: what is sent twice, what is not passed on, what is streamed.

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
