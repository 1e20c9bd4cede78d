//! TLS as a stage, by rustls. Owns certificates, keys and handshakes; must never open a file or a
//! socket.
//!
//! `settings` has what a caller chooses; a server makes its stages by `server`, a client by
//! `client`. `tls_stage` is the stage of one connection, for both roles.

mod certificate;
mod client;
mod for_tests;
mod identity;
mod pem;
mod roots;
mod server;
mod settings;
mod tls_stage;
mod verifier;
mod words;

pub use self::certificate::Certificate;
pub use self::client::{TlsClient, server_name};
pub use self::for_tests::{ForTests, for_tests};
pub use self::identity::Identity;
pub use self::pem::{Pem, to_pem};
pub use self::roots::{Roots, system_roots};
pub use self::server::TlsServer;
pub use self::settings::TlsSettings;
pub use self::words::{is_peers_tls_error, tls_error};
