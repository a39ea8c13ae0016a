//! Lists of operations and volumes: a page of each index that serves a part of the filter, merged.
//!
//! ```text
//!  volume, failed ──► on the volume:  attach failed · detach failed · …  ┐
//!                     made by:        create failed · …                  ├─► the first page of them all
//! ```

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use oma_core::record::{Operation, OperationFilter, OperationPlace, Order, VolumeFilter, VolumeRecord};
use oma_core::state::{OperationKind, OperationStatus, VolumeStatus};
use oma_core::{ContextId, Timestamp, VolumeId};

use crate::db::{Row, Sql, Val, vals};
use crate::error::Result;
use crate::page::{PAGE, merged, pages};
use crate::record::{operation, volume};
use crate::sql::{operations, volumes};
use crate::store::SqlStore;

/// Whose operations.
#[derive(Clone, Debug)]
enum Whose {
    Anybodys,
    Vm(ContextId),
    /// Asked for on a volume, by its row.
    On(i64),
    /// That ended with a volume, by its row.
    By(i64),
}

/// One of each kind and state that is wanted; `None` when any will do.
type Kinds = Option<Vec<(OperationKind, OperationStatus)>>;

impl SqlStore {
    pub(super) fn list_operations(
        &self,
        filter: OperationFilter,
    ) -> BoxStream<'_, oma_core::Result<Operation>> {
        if filter.left_only || filter.due_by.is_some() {
            let found = async move {
                let found =
                    self.few_operations(&filter).await.map_err(|error| error.at("list", "operations"));
                found.map_or_else(|error| vec![Err(error)], |found| found.into_iter().map(Ok).collect())
            };
            return stream::once(found).flat_map(stream::iter).boxed();
        }
        let after = filter.after.clone();
        let page = move |behind: Option<OperationPlace>| {
            let filter = OperationFilter { after: behind, ..filter.clone() };
            async move { self.operation_page(&filter).await.map_err(|error| error.at("list", "operations")) }
        };
        pages(after, Operation::place, page)
    }

    async fn operation_page(&self, filter: &OperationFilter) -> Result<Vec<Operation>> {
        let whose = match (&filter.volume, &filter.context) {
            (None, None) => vec![Whose::Anybodys],
            (None, Some(vm)) => vec![Whose::Vm(vm.clone())],
            (Some(id), vm) => match self.db.find(volumes::ROW, vals![id], row_and_vm).await? {
                // A volume is of one VM for ever.
                Some((row, of)) if vm.as_ref().is_none_or(|vm| *vm == of) => {
                    vec![Whose::On(row), Whose::By(row)]
                }
                _ => Vec::new(),
            },
        };
        let kinds = kinds(filter);
        let mut lists: Vec<(Sql, Vec<Val>)> = Vec::new();
        for whose in &whose {
            match &kinds {
                None => lists.push(list(whose, None, filter)?),
                Some(kinds) => {
                    for kind in kinds {
                        lists.push(list(whose, Some(*kind), filter)?);
                    }
                }
            }
        }
        if lists.len() == 1
            && let Some((sql, values)) = lists.pop()
        {
            return self.db.all(sql, Ok(values), operation).await;
        }
        // Of one moment: one that goes from one state to another is in one list.
        let mut tx = self.db.snapshot().await?;
        let mut found = Vec::new();
        for (sql, values) in lists {
            found.extend(tx.all(sql, Ok(values), operation).await?);
        }
        Ok(merged(found, filter.order, Operation::place))
    }

    /// Of those that have not ended: there is one at most of each disk.
    async fn few_operations(&self, filter: &OperationFilter) -> Result<Vec<Operation>> {
        let mut found = match filter.due_by {
            // Of no record alone is told whether its VM has a job.
            _ if filter.left_only => self.db.all(operations::LEFT, vals![], operation).await?,
            due_by => self.db.all(operations::DUE, vals![due_by], operation).await?,
        };
        found.retain(|operation| filter.lets_through(operation));
        found.sort_by(|one, other| filter.order.compare(&one.place(), &other.place()));
        Ok(found)
    }

    pub(super) fn list_volumes(&self, filter: VolumeFilter) -> BoxStream<'_, oma_core::Result<VolumeRecord>> {
        let after = filter.after.clone();
        let page = move |behind: Option<VolumeId>| {
            let filter = VolumeFilter { after: behind, ..filter.clone() };
            async move { self.volume_page(&filter).await.map_err(|error| error.at("list", "volumes")) }
        };
        pages(after, |last: &VolumeRecord| last.id.clone(), page)
    }

    async fn volume_page(&self, filter: &VolumeFilter) -> Result<Vec<VolumeRecord>> {
        let behind = filter.after.clone().map_or(String::new(), String::from);
        match (&filter.context, filter.status) {
            // Of one that is gone nothing is told.
            (_, Some(VolumeStatus::Deleted)) => Ok(Vec::new()),
            (None, None) => self.db.all(volumes::PAGE, vals![behind, PAGE], volume).await,
            (None, Some(status)) => {
                self.db.all(volumes::PAGE_OF_STATUS, vals![status, behind, PAGE], volume).await
            }
            (Some(vm), Some(status)) => {
                self.db.all(volumes::PAGE_OF_VM, vals![vm, status, behind, PAGE], volume).await
            }
            (Some(vm), None) => {
                let mut tx = self.db.snapshot().await?;
                let mut found = Vec::new();
                for status in VolumeStatus::ALL.iter().filter(|status| **status != VolumeStatus::Deleted) {
                    let values = vals![vm, *status, behind, PAGE];
                    found.extend(tx.all(volumes::PAGE_OF_VM, values, volume).await?);
                }
                Ok(merged(found, Order::Oldest, |volume| volume.id.clone()))
            }
        }
    }
}

fn kinds(filter: &OperationFilter) -> Kinds {
    if filter.kind.is_none() && filter.status.is_none() {
        return None;
    }
    let kinds = OperationKind::ALL.iter().filter(|kind| filter.kind.is_none_or(|wanted| wanted == **kind));
    let of_kind = |kind: &OperationKind| {
        let kind = *kind;
        let states = OperationStatus::ALL.iter();
        let states = states.filter(|status| filter.status.is_none_or(|wanted| wanted == **status));
        states.map(move |status| (kind, *status)).collect::<Vec<_>>()
    };
    Some(kinds.flat_map(of_kind).collect())
}

/// The statement of one list, and its values.
fn list(
    whose: &Whose,
    kind: Option<(OperationKind, OperationStatus)>,
    filter: &OperationFilter,
) -> Result<(Sql, Vec<Val>)> {
    use operations as sql;
    let (newest, oldest) = match (whose, kind) {
        (Whose::Anybodys, None) => (sql::NEWEST, sql::OLDEST),
        (Whose::Anybodys, Some(_)) => (sql::NEWEST_OF_KIND, sql::OLDEST_OF_KIND),
        (Whose::Vm(_), None) => (sql::NEWEST_OF_VM, sql::OLDEST_OF_VM),
        (Whose::Vm(_), Some(_)) => (sql::NEWEST_OF_VM_AND_KIND, sql::OLDEST_OF_VM_AND_KIND),
        (Whose::On(_), None) => (sql::NEWEST_ON, sql::OLDEST_ON),
        (Whose::On(_), Some(_)) => (sql::NEWEST_ON_AND_KIND, sql::OLDEST_ON_AND_KIND),
        (Whose::By(_), None) => (sql::NEWEST_BY, sql::OLDEST_BY),
        (Whose::By(_), Some(_)) => (sql::NEWEST_BY_AND_KIND, sql::OLDEST_BY_AND_KIND),
    };
    let mut values: Vec<Val> = match whose {
        Whose::Anybodys => Vec::new(),
        Whose::Vm(vm) => vals![vm]?,
        Whose::On(row) | Whose::By(row) => vals![*row]?,
    };
    if let Some((kind, status)) = kind {
        values.extend(vals![kind, status]?);
    }
    let (at, id) = match (&filter.after, filter.order) {
        (Some(last), _) => (last.created_at, last.id.as_str()),
        (None, Order::Newest) => (Timestamp::MAX, ""),
        // Nothing was recorded before 1970, and no id is empty.
        (None, Order::Oldest) => (Timestamp::from_millis(0), ""),
    };
    values.extend(vals![at, at, id, PAGE]?);
    Ok((if filter.order == Order::Newest { newest } else { oldest }, values))
}

fn row_and_vm(row: &Row) -> Result<(i64, ContextId)> {
    let fields = row.fields("ossea_volumes", "volume_id");
    Ok((fields.int("id")?, fields.parse("vm_context_id")?))
}
