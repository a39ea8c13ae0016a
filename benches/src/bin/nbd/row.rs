//! The rows: one client and one kind of work each, put on every server.

use crate::disk::Medium;
use crate::fio::Fio;
use crate::lean::{Action, Lean};
use crate::load::Load;
use crate::server::Transport;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// GiB; a sparse disk counts with its holes.
    Gib,
    /// Requests.
    Requests,
}

/// A row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) load: Load,
    pub(crate) transport: Transport,
    pub(crate) medium: Medium,
    pub(crate) unit: Unit,
    pub(crate) must: Must,
}

/// What our server must reach, against the fastest peer of the same run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Must {
    /// At least so many times its rate.
    pub(crate) rate: Option<f64>,
    /// At most so many times its processor time for the same work.
    pub(crate) cpu: Option<f64>,
}

impl Unit {
    /// How rates are shown: their name, and by what they are divided.
    pub(crate) const fn rate(self) -> (&'static str, f64) {
        match self {
            Self::Gib => ("GiB/s", 1.0),
            Self::Requests => ("k requests/s", 1000.0),
        }
    }

    /// How processor time is shown: its name, and for how much work.
    pub(crate) const fn cpu(self) -> (&'static str, f64) {
        match self {
            Self::Gib => ("server CPU s/GiB", 1.0),
            Self::Requests => ("server CPU s/100k requests", 100_000.0),
        }
    }
}

/// All rows, in the order of the report.
pub(crate) fn all() -> Vec<Row> {
    [streams(), requests(), large(), elsewhere()].concat()
}

const KIB: u32 = 1 << 10;
const MIB: u32 = 1 << 20;

/// A row over a unix socket on a full disk, counted in GiB.
const fn row(name: &'static str, title: &'static str, load: Load, must: Must) -> Row {
    Row { name, title, load, transport: Transport::Unix, medium: Medium::Full, unit: Unit::Gib, must }
}

const fn rate(rate: f64) -> Must {
    Must { rate: Some(rate), cpu: None }
}

const fn both(rate: f64, cpu: f64) -> Must {
    Must { rate: Some(rate), cpu: Some(cpu) }
}

const fn lean(action: Action, connections: u32, depth: u32) -> Load {
    Load::Lean(Lean { action, connections, depth, block: 256 * KIB })
}

const fn fio(pattern: &'static str, block: u32, depth: u32, jobs: u32) -> Load {
    Load::Fio(Fio { pattern, block, depth, jobs })
}

fn streams() -> Vec<Row> {
    use Load::{CopyIn, CopyOut};
    let none = Must::default();
    let tcp = |row: Row| Row { transport: Transport::Tcp, ..row };
    vec![
        row("seq-read-unix", "Sequential read, nbdcopy to nowhere, unix socket", CopyOut, both(1.6, 0.3)),
        tcp(row("seq-read-tcp", "Sequential read, nbdcopy to nowhere, TCP", CopyOut, both(1.4, 0.3))),
        row(
            "seq-read-ours",
            "Sequential read, our client, 2 × 4 × 256 KiB",
            lean(Action::Read, 2, 4),
            rate(2.0),
        ),
        row(
            "seq-read-wide",
            "Sequential read, our client, 4 × 64 × 256 KiB",
            lean(Action::Read, 4, 64),
            none,
        ),
        row("seq-write-nbdcopy", "Sequential write, nbdcopy from a file", CopyIn, both(1.1, 0.9)),
        row(
            "seq-write-ours",
            "Sequential write, our client, 2 × 4 × 256 KiB",
            lean(Action::Write, 2, 4),
            rate(1.4),
        ),
    ]
}

fn requests() -> Vec<Row> {
    let counted = |name, title, pattern, depth, must| Row {
        unit: Unit::Requests,
        ..row(name, title, fio(pattern, 4 * KIB, depth, 1), rate(must))
    };
    vec![
        counted("rand-read-1", "4 KiB random read, fio, depth 1", "randread", 1, 1.5),
        counted("rand-read-16", "4 KiB random read, fio, depth 16", "randread", 16, 2.0),
        counted("rand-read-64", "4 KiB random read, fio, depth 64", "randread", 64, 2.0),
        counted("rand-write-1", "4 KiB random write, fio, depth 1", "randwrite", 1, 1.2),
        counted("rand-write-16", "4 KiB random write, fio, depth 16", "randwrite", 16, 1.1),
        counted("rand-write-64", "4 KiB random write, fio, depth 64", "randwrite", 64, 1.2),
    ]
}

fn large() -> Vec<Row> {
    let large = |name, title, pattern, transport, must| Row {
        transport,
        ..row(name, title, fio(pattern, MIB, 16, 1), rate(must))
    };
    use Transport::{Tcp, Unix};
    vec![
        large("large-read-unix", "1 MiB read, fio, depth 16, unix socket", "read", Unix, 1.3),
        large("large-write-unix", "1 MiB write, fio, depth 16, unix socket", "write", Unix, 1.1),
        large("large-read-tcp", "1 MiB read, fio, depth 16, TCP", "read", Tcp, 1.3),
        large("large-write-tcp", "1 MiB write, fio, depth 16, TCP", "write", Tcp, 1.1),
    ]
}

fn elsewhere() -> Vec<Row> {
    let cold = |name, title, load, must| Row {
        medium: Medium::Cold,
        unit: Unit::Requests,
        ..row(name, title, load, rate(must))
    };
    vec![
        Row {
            medium: Medium::Sparse,
            ..row(
                "sparse",
                "Sparse disk, a sixteenth of it data, nbdcopy to nowhere",
                Load::CopyOut,
                rate(1.1),
            )
        },
        Row {
            transport: Transport::Tls,
            ..row("tls-read", "Sequential read with TLS, nbdcopy to nowhere", Load::CopyOut, rate(1.3))
        },
        cold(
            "cold-read-1",
            "Cold ext4, 4 KiB random read, fio, depth 1",
            fio("randread", 4 * KIB, 1, 1),
            1.1,
        ),
        cold(
            "cold-read-64",
            "Cold ext4, 4 KiB random read, fio, 2 × depth 32",
            fio("randread", 4 * KIB, 32, 2),
            1.0,
        ),
    ]
}
