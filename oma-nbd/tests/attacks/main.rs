//! What broke other servers, each by its name, and what any stranger can do to a port.
#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, reason = "a test panics when its setup fails")]

mod handshake;
mod pace;
#[path = "../raw/mod.rs"]
mod raw;
mod requests;

use std::sync::Arc;

use oma_core::ByteSize;
use oma_core::memory::MemoryDevice;
use oma_nbd::protocol::NBD_CMD_READ;
use oma_nbd::{Server, ServerConfig};
use raw::{Raw, Reply, request};

const SIZE: ByteSize = ByteSize::mib(1);
const MIB: u32 = 1 << 20;

async fn server() -> Server {
    server_with(ServerConfig::default()).await
}

async fn server_with(config: ServerConfig) -> Server {
    raw::server(config, Arc::new(MemoryDevice::new("m", SIZE))).await
}

/// A client still gets all it asks for.
async fn is_well(server: &Server) {
    let mut raw = Raw::simple(server).await;
    assert_eq!(raw.ask(request(NBD_CMD_READ, SIZE.bytes() - 512, 512), &[]).await, Reply::Data(vec![0; 512]));
}

/// Numbers that look random and are the same in each run (xorshift64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.roll() % u64::try_from(limit).unwrap()).unwrap()
    }
}
