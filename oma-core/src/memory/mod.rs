//! Complete in-memory implementations of every trait: for tests, documentation and embedders' first steps.

mod backend;
mod clock;
mod copy_journal;
mod device;
mod exports;
mod faulty;
mod gate;
mod held;
mod pages;
mod source;
mod store;

pub use backend::MemoryBackend;
pub use clock::ManualClock;
pub use copy_journal::MemoryCopyJournal;
pub use device::{DeviceCalls, MemoryDevice};
pub use exports::MemoryExportServer;
pub use faulty::{DeviceCall, Faults, FaultyDevice};
pub use held::{HeldDevice, Hold};
pub use source::MemorySource;
pub use store::MemoryStore;
