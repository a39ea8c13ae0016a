//! The audit trail, for admins.

use axum::Json;
use axum::extract::State;
use oma_core::audit::{AuditFilter, AuditFrom, AuditHead, AuditHeadError};
use oma_core::state::Role;
use oma_core::{AuditId, Error, ErrorKind};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{AccountRoutes, Part};
use crate::server::audit::Asker;
use crate::server::extract::InQuery;
use crate::server::paging::{Sorted, never_answered};
use crate::server::problem::Answer;
use crate::server::problems::Problems;
use crate::{AuditRow, AuditVerification, Page};

pub(super) fn group() -> OpenApiRouter<AccountRoutes> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(verify))
}

/// Which entries.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// Only those of somebody, by name: an account's address.
    actor: Option<String>,
    /// Only those about a thing of this kind; together with `resource_id`, without `actor`.
    resource_type: Option<String>,
    /// Which one.
    resource_id: Option<String>,
}

impl Wanted {
    fn filter(self) -> Answer<AuditFilter> {
        match (self.actor, self.resource_type, self.resource_id) {
            (None, None, None) => Ok(AuditFilter::All),
            (Some(actor), None, None) => Ok(AuditFilter::Actor(actor)),
            (None, Some(kind), Some(id)) => Ok(AuditFilter::Resource { kind, id }),
            _ => Err(Error::new(ErrorKind::Invalid, "filter", "the audit trail")
                .because("give `actor`, or `resource_type` together with `resource_id`, or neither")
                .into()),
        }
    }
}

/// The audit trail, entry by entry. Needs an admin
#[utoipa::path(get, path = "/audit", tag = "audit", params(Wanted, Sorted, Part),
    responses((status = 200, body = Page<AuditRow>), Problems))]
async fn list(
    State(routes): State<AccountRoutes>,
    asker: Asker,
    InQuery(wanted): InQuery<Wanted>,
    InQuery(sorted): InQuery<Sorted>,
    InQuery(part): InQuery<Part>,
) -> Answer<Json<Page<AuditRow>>> {
    asker.principal.needs(Role::Admin, "read", &"the audit trail")?;
    let filter = wanted.filter()?;
    let behind = match &part.after {
        None => None,
        Some(next) => {
            let number = sorted.place(next)?.parse().map_err(|_| never_answered(next))?;
            Some(AuditId(number))
        }
    };
    let from = AuditFrom { order: sorted.order, behind };
    let limit = part.limit();
    let found = routes.audit.audit_entries(&filter, from, u32::from(limit)).await?;
    let is_full = found.len() == usize::from(limit);
    let next = found.last().filter(|_| is_full).map(|last| sorted.next(&last.id));
    Ok(Json(Page { items: found.iter().map(AuditRow::from).collect(), next }))
}

/// What is known of the trail from before.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct KnownBefore {
    /// The last entry of an earlier answer, `last_id` and `last_hash` with a colon between, kept elsewhere: a trail that does not go through
    /// it was rewritten.
    #[param(pattern = "^[0-9]{1,20}:[0-9A-Fa-f]{64}$")]
    known: Option<String>,
}

impl KnownBefore {
    fn head(&self) -> Answer<Option<AuditHead>> {
        let head = |text: &String| {
            text.parse().map_err(|error: AuditHeadError| {
                Error::new(ErrorKind::Invalid, "read the known entry", text).with_source(error)
            })
        };
        Ok(self.known.as_ref().map(head).transpose()?)
    }
}

/// Read the whole audit trail and tell the first place where it was tampered with. Needs an admin
#[utoipa::path(get, path = "/audit/verification", tag = "audit", params(KnownBefore),
    responses((status = 200, body = AuditVerification), Problems))]
async fn verify(
    State(routes): State<AccountRoutes>,
    asker: Asker,
    InQuery(before): InQuery<KnownBefore>,
) -> Answer<Json<AuditVerification>> {
    asker.principal.needs(Role::Admin, "verify", &"the audit trail")?;
    let known = before.head()?;
    Ok(Json(AuditVerification::from(&routes.audit.verify_audit(known.as_ref()).await?)))
}
