//! Block status: from descriptors of the server to extents that can be trusted.

use bytes::BytesMut;
use oma_core::Extent;
use oma_core::traits::{BlockStatus, BlockStatusKind};

use super::Client;
use super::connection::Request;
use super::decoder::{Answer, Expected};
use super::device::head;
use super::error::{Failure, Violation};
use crate::protocol::{
    ExtendedDescriptor, Headers, NBD_CMD_BLOCK_STATUS, NBD_FLAG_BLOCK_STAT_PAYLOAD, NBD_STATE_HOLE,
    NBD_STATE_ZERO, StatusPayload,
};

/// Flags of a metadata context for one extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetaStatus {
    /// The extent.
    pub extent: Extent,
    /// What the context says of it.
    pub flags: u64,
}

impl Client {
    /// One request: the status of a part of an extent, from its start.
    pub(super) async fn status(&self, context: &str, extent: Extent) -> Result<Vec<MetaStatus>, Failure> {
        let connection = self.pool.connection().await?;
        let export = &connection.export;
        // Ids belong to a connection, names to the export.
        let id = export.context(context).ok_or_else(|| Failure::NoContext(context.to_owned()))?;
        let asked = head(export.headers, extent);
        let mut request = Request::new(NBD_CMD_BLOCK_STATUS, asked.offset(), asked.length());
        let mut contexts: Vec<_> = export.contexts.iter().map(|(_, id)| *id).collect();
        if contexts.len() > 1
            && export.headers == Headers::Extended
            && export.has(NBD_FLAG_BLOCK_STAT_PAYLOAD)
        {
            // The others would be told too, and cost the server as much.
            contexts = vec![id];
            let mut payload = BytesMut::new();
            StatusPayload { length: asked.length(), contexts: vec![id] }.encode(&mut payload);
            request.payload = payload.freeze();
        }
        let request = request.expecting(Expected::Status { contexts });
        let found = match connection.request(request).await? {
            Answer::Status(found) => found.into_iter().find(|status| status.context == id),
            Answer::Done | Answer::Data(_) => None,
        };
        let found = found.ok_or(Violation::Status("a context that was agreed is missing"))?;
        Ok(extents(asked, &found.descriptors))
    }
}

/// Extents from the start of `asked`, clipped to it: the last one may be longer than what was asked for.
pub(super) fn extents(asked: Extent, descriptors: &[ExtendedDescriptor]) -> Vec<MetaStatus> {
    let mut found: Vec<MetaStatus> = Vec::with_capacity(descriptors.len());
    let mut at = asked.offset();
    for descriptor in descriptors {
        let end = at.saturating_add(descriptor.length).min(asked.end());
        let Some(extent) = Extent::between(at, end) else { break };
        at = end;
        match found.last_mut() {
            Some(last) if last.flags == descriptor.flags => {
                last.extent = Extent::between(last.extent.offset(), end).unwrap_or(extent);
            }
            _ => found.push(MetaStatus { extent, flags: descriptor.flags }),
        }
    }
    found
}

/// What `base:allocation` says: two bits, two promises (L10).
pub(super) fn allocation(status: MetaStatus) -> BlockStatus {
    let [hole, zero] = [NBD_STATE_HOLE, NBD_STATE_ZERO].map(|flag| status.flags & u64::from(flag) != 0);
    let kind = match (hole, zero) {
        (false, false) => BlockStatusKind::Data,
        (false, true) => BlockStatusKind::Zero,
        (true, true) => BlockStatusKind::Hole,
        (true, false) => BlockStatusKind::Unallocated,
    };
    BlockStatus { extent: status.extent, kind }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn asked() -> Extent {
        Extent::new(4096, 8192).unwrap()
    }

    fn found(descriptors: &[(u64, u64)]) -> Vec<(u64, u64, u64)> {
        let list: Vec<_> =
            descriptors.iter().map(|&(length, flags)| ExtendedDescriptor { length, flags }).collect();
        extents(asked(), &list).iter().map(|s| (s.extent.offset(), s.extent.length(), s.flags)).collect()
    }

    #[test]
    fn an_overlong_end_is_clipped_and_neighbours_are_merged() {
        assert_eq!(found(&[(4096, 0), (u64::MAX, 1)]), [(4096, 4096, 0), (8192, 4096, 1)]);
        assert_eq!(found(&[(4096, 3), (1024, 3), (512, 0)]), [(4096, 5120, 3), (9216, 512, 0)]);
        assert_eq!(found(&[(8192, 0), (4096, 1)]), [(4096, 8192, 0)]);
    }

    #[test]
    fn l10_hole_and_zero_are_two_promises() {
        let kind = |flags: u32| allocation(MetaStatus { extent: asked(), flags: flags.into() }).kind;
        assert_eq!(kind(0), BlockStatusKind::Data);
        assert_eq!(kind(NBD_STATE_HOLE), BlockStatusKind::Unallocated);
        assert_eq!(kind(NBD_STATE_ZERO), BlockStatusKind::Zero);
        assert_eq!(kind(NBD_STATE_HOLE | NBD_STATE_ZERO), BlockStatusKind::Hole);
        for flags in [1 << 31, 1 << 32, u64::MAX << 2] {
            let unknown = allocation(MetaStatus { extent: asked(), flags });
            assert_eq!(unknown.kind, BlockStatusKind::Data, "unknown flags promise nothing");
        }
    }

    proptest! {
        #[test]
        fn extents_are_in_order_without_gaps_within_what_was_asked(list in prop::collection::vec((1u64.., 0u64..4), 1..20)) {
            let found = found(&list);
            prop_assert_eq!(found[0].0, asked().offset());
            prop_assert!(found.windows(2).all(|pair| pair[0].0 + pair[0].1 == pair[1].0 && pair[0].2 != pair[1].2));
            prop_assert!(found.iter().all(|(offset, length, _)| offset + length <= asked().end()));
        }
    }
}
