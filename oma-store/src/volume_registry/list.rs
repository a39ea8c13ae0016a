//! Lists of operations: by the index that leaves least, then by the rest of the filter.

use std::cmp::Reverse;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use oma_core::Timestamp;
use oma_core::record::{Operation, OperationFilter, OperationPlace};
use oma_core::state::OperationStatus;

use crate::db::vals;
use crate::error::Result;
use crate::page::{PAGE, pages};
use crate::record::operation;
use crate::sql::operations;
use crate::store::SqlStore;

impl SqlStore {
    pub(super) fn list_operations(
        &self,
        filter: OperationFilter,
    ) -> BoxStream<'_, oma_core::Result<Operation>> {
        let unfinished = filter.left_only
            || filter.due_by.is_some()
            || filter.status.is_some_and(|status| !OperationStatus::is_terminal(status));
        if filter.volume.is_none() && filter.context.is_none() && !unfinished {
            let page = async move |behind| {
                self.operation_page(behind).await.map_err(|error| error.at("list", "operations"))
            };
            return pages(filter.after.clone(), Operation::place, page)
                .filter(move |item| {
                    let wanted = item.as_ref().map_or(true, |operation| is_wanted(&filter, operation));
                    std::future::ready(wanted)
                })
                .boxed();
        }
        let found = async move {
            let found = self.few_operations(&filter).await.map_err(|error| error.at("list", "operations"));
            match found {
                Err(error) => vec![Err(error)],
                Ok(found) => {
                    found.into_iter().filter(|operation| is_wanted(&filter, operation)).map(Ok).collect()
                }
            }
        };
        stream::once(found).flat_map(stream::iter).boxed()
    }

    async fn operation_page(&self, behind: Option<OperationPlace>) -> Result<Vec<Operation>> {
        let (at, id) =
            behind.map_or((Timestamp::MAX, String::new()), |last| (last.created_at, last.id.into()));
        self.db.all(operations::PAGE, vals![at, at, id, PAGE], operation).await
    }

    /// What one index finds: not ended, of a volume, or of a VM.
    async fn few_operations(&self, filter: &OperationFilter) -> Result<Vec<Operation>> {
        let mut found = match (&filter.volume, &filter.context) {
            // Of no record alone is told whether its VM has a job.
            _ if filter.left_only => self.db.all(operations::LEFT, vals![], operation).await?,
            (Some(volume), _) => {
                let mut found = self.db.all(operations::ON_VOLUME, vals![volume], operation).await?;
                found.extend(self.db.all(operations::MADE_VOLUME, vals![volume], operation).await?);
                found
            }
            (None, Some(vm)) => self.db.all(operations::OF_CONTEXT, vals![vm], operation).await?,
            (None, None) => match filter.due_by {
                Some(by) => self.db.all(operations::DUE, vals![by], operation).await?,
                None => self.db.all(operations::ALL_UNFINISHED, vals![], operation).await?,
            },
        };
        found.sort_by_cached_key(|operation| Reverse(operation.place()));
        found.dedup_by(|a, b| a.spec.id == b.spec.id);
        Ok(found)
    }
}

fn is_wanted(filter: &OperationFilter, operation: &Operation) -> bool {
    let Operation { spec, made, .. } = operation;
    filter.context.as_ref().is_none_or(|context| *context == spec.disk.context)
        && filter
            .volume
            .as_ref()
            .is_none_or(|id| spec.volume.as_ref() == Some(id) || made.as_ref() == Some(id))
        && filter.kind.is_none_or(|kind| kind == spec.kind)
        && filter.status.is_none_or(|status| status == operation.status)
        && filter.due_by.is_none_or(|by| operation.due_at.is_some_and(|due_at| due_at <= by))
        && filter.after.as_ref().is_none_or(|after| operation.place() < *after)
}
