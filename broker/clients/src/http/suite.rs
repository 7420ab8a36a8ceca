//! Lanes against servers on real sockets.

mod plain;
mod server;
mod tls;
