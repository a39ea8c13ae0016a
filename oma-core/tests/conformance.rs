//! Conformance of what is in memory.
#![allow(clippy::unwrap_used, reason = "a subject that cannot be made is a failed test")]

use std::process::ExitCode;
use std::sync::Arc;

use oma_core::conformance::{self, DEVICE_CAPACITY, DeviceSubject, Trial, sample};
use oma_core::memory::MemoryDevice;
use oma_core::traits::{BlockDevice, Durability};

fn main() -> ExitCode {
    conformance::run(devices())
}

fn devices() -> Vec<Trial> {
    let subject = |device: MemoryDevice| DeviceSubject { device: Arc::new(device), guard: Box::new(()) };
    let fresh = || MemoryDevice::new("memory", DEVICE_CAPACITY);
    let mut trials =
        conformance::cases("memory_device", &conformance::block_device_cases(), move || async move {
            subject(fresh())
        });
    trials.extend(conformance::cases(
        "memory_device",
        &conformance::read_only_device_cases(),
        move || async move {
            let device = fresh();
            let length = usize::try_from(DEVICE_CAPACITY.bytes()).unwrap();
            device.write_at(0, sample(0, length), Durability::Cached).await.unwrap();
            subject(device.read_only())
        },
    ));
    trials.extend(conformance::cases(
        "memory_device",
        &conformance::short_device_cases(),
        move || async move {
            let device = fresh();
            device.cut(DEVICE_CAPACITY.bytes() / 2);
            subject(device)
        },
    ));
    trials
}
