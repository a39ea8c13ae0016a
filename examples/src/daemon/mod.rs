//! What the daemons share: where they serve, where volumes live, who they are.

mod args;
pub mod backend;
mod by_access;
mod cloud_check;
mod content;
pub mod doors;
mod given;
mod ground;
mod identities;
mod listen;
pub mod log;
mod manager;
pub mod nbd_port;
mod own;
mod parts;
pub mod token;
#[cfg(feature = "opentelemetry")]
mod traces;
mod worker;

pub use args::{Backend, BackendArgs, DoorArgs, NbdArgs};
pub use by_access::ByAccess;
pub use content::Content;
pub use doors::Doors;
pub use given::Given;
pub use ground::{Ground, UPKEEP};
pub use identities::Identities;
pub use listen::Listen;
pub use nbd_port::NbdPort;
pub use token::TokenArgs;
