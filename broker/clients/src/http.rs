//! HTTP/1.1 to subscribers and sinks, on connections that the sender owns.
//!
//! A [`Lane`] is one sender's place on the wire: it holds at most one connection, sends one request at a time, and
//! drives the connection within the sender's own task, so that a connection costs no task and no channel between
//! threads. Connections that a lane no longer needs wait in the [`Pool`] for the next lane to the same authority.
//!
//! ```text
//!   Target (parsed once) ──▶ Pool::lane ──▶ Lane ──send──▶ Received ──body | discard──▶ Lane, ready again
//!                              ▲                                          │
//!                              └───────── idle connection ◀── drop ───────┘
//! ```
//!
//! Dropping any future of this module is safe for what comes after: the connection that was in use is closed, and
//! the next request opens another. Whether the dropped request was received is then not known.

mod connection;
mod error;
mod google_identity;
mod lane;
mod oauth;
mod places;
mod pool;
mod settings;
mod site;
mod target;
mod tls;
mod turns;

pub use self::connection::{Body, DRAIN_BYTES, DRAIN_TIME};
pub use self::error::{SendError, classify};
pub use self::google_identity::{GoogleIdentity, GoogleIdentityCredentials};
pub use self::lane::{Lane, Received};
pub use self::oauth::{OAuth2, OAuth2Credentials};
pub use self::pool::{Pool, PoolOptions};
pub use self::settings::{BasicCredentials, HttpTls, TokenCredentials, basic_authorization, secret};
pub use self::site::{Answered, Site};
pub use self::target::{Target, TargetError, UrlFault};
pub use self::tls::{NoPlatformRoots, OwnRootsError, TlsOptions};

#[cfg(test)]
mod suite;
