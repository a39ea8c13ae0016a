use tokio_util::sync::CancellationToken;

/// How connections are told to end.
#[derive(Clone, Debug, Default)]
pub(super) struct Stop {
    /// Finish what is in flight, refuse the rest, then leave.
    pub(super) drain: CancellationToken,
    /// Leave now.
    pub(super) cut: CancellationToken,
}
