//! What the daemons share: where they serve, where volumes live, who they are.

mod args;
pub mod backend;
mod by_access;
mod content;
pub mod doors;
pub mod log;
pub mod nbd_port;
mod parts;
pub mod token;
mod worker;

pub use args::{Backend, BackendArgs, DoorArgs, NbdArgs};
pub use by_access::ByAccess;
pub use content::Content;
pub use doors::Doors;
pub use nbd_port::NbdPort;
pub use parts::readiness;
pub use token::TokenArgs;
pub use worker::worker_name;
