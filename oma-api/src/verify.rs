use std::path::PathBuf;

use oma_core::record::VerificationReport;
use oma_core::seal::PublicKey;
use oma_core::{ByteSize, DiskKey, Extent, VmPath};
use serde::{Deserialize, Serialize};

/// How a comparison ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerifyStatus {
    /// Every byte of every disk is the same.
    Identical,
    /// At least one extent differs.
    Differs,
}

/// The disks of a VM, compared with their volumes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// The VM.
    pub vm_path: VmPath,
    /// How it ended.
    pub status: VerifyStatus,
    /// How long it took.
    pub seconds: f64,
    /// What to do when they differ, or why the report could not be saved, in one sentence.
    pub error: Option<String>,
    /// Its disks, by key.
    pub disks: Vec<DiskComparison>,
}

/// One disk, compared with its volume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiskComparison {
    /// The disk.
    pub disk_key: DiskKey,
    /// How it ended.
    pub status: VerifyStatus,
    /// Bytes that were compared, with those that are only promised.
    pub bytes_verified: ByteSize,
    /// Of these, bytes that both sides promise to be zero: nobody read them.
    pub bytes_promised_zero: ByteSize,
    /// Bytes in the extents that differ.
    pub bytes_different: ByteSize,
    /// Each extent that differs, in order, as `[offset, length]`.
    pub differences: Vec<Extent>,
}

/// A verification report whose signature is good (`oma verify --report`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportCheck {
    /// What the report says.
    pub status: VerifyStatus,
    /// The key that it is signed with.
    pub public_key: PublicKey,
    /// Files that have the roots of the report.
    pub files: Vec<PathBuf>,
    /// The report.
    pub report: VerificationReport,
}

/// The key that reports of a data directory are signed with (`oma key`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRow {
    /// The public part.
    pub public_key: PublicKey,
}
