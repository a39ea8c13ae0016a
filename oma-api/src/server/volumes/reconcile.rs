//! Records and backend are compared, and what is provably ours is repaired by a plan.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::{Extension, Json};
use oma_core::engine::{ReconcilePlan, Reconciled};
use oma_core::{Error, ErrorKind, Retry};
use tokio::sync::{Mutex, OwnedMutexGuard};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::VolumeRoutes;
use crate::Compared;
use crate::server::access::{Principal, Role};
use crate::server::extract::Body;
use crate::server::problem::Answer;
use crate::server::problems::Problems;
use crate::server::to_its_end::to_its_end;

/// A plan of many steps is long.
const LONGEST: usize = 64 << 20;

pub(super) fn group() -> OpenApiRouter<VolumeRoutes> {
    let routes = OpenApiRouter::new().routes(routes!(compare, execute));
    routes.layer(DefaultBodyLimit::max(LONGEST)).layer(Extension(Alone::default()))
}

/// One comparison at a time: each asks the backend about everything.
#[derive(Clone, Debug, Default)]
struct Alone(Arc<Mutex<()>>);

impl Alone {
    fn take(self) -> Answer<OwnedMutexGuard<()>> {
        self.0.try_lock_owned().map_err(|_| {
            let busy = Error::new(ErrorKind::Busy, "compare", "records and volumes").with_retry(Retry::Later);
            busy.because("another comparison is under way; ask again when it has ended").into()
        })
    }
}

/// Compare records and backend in both directions. Nothing is changed: `plan` is what can be repaired. Needs an operator: the backend is
/// asked about each volume
#[utoipa::path(get, path = "/reconciliation", tag = "reconciliation",
    responses((status = 200, body = Object), Problems))]
async fn compare(
    State(routes): State<VolumeRoutes>,
    Extension(principal): Extension<Principal>,
    Extension(alone): Extension<Alone>,
) -> Answer<Json<Compared>> {
    principal.needs(Role::Operator, "compare", &"records and volumes")?;
    let _alone = alone.take()?;
    let found = routes.reconciler.compare(None).await?;
    let plan = found.plan();
    Ok(Json(Compared { found, plan }))
}

/// Do the steps of a plan, each if the world still is as the plan saw it, then compare again. Needs an admin
#[utoipa::path(post, path = "/reconciliation", tag = "reconciliation", request_body = Object,
    responses((status = 200, body = Object), Problems))]
async fn execute(
    State(routes): State<VolumeRoutes>,
    Extension(principal): Extension<Principal>,
    Extension(alone): Extension<Alone>,
    Body(plan): Body<ReconcilePlan>,
) -> Answer<Json<Reconciled>> {
    principal.needs(Role::Admin, "execute", &"a plan")?;
    let alone = alone.take()?;
    let done = to_its_end("execute", "a plan", async move {
        let _alone = alone;
        routes.reconciler.execute(&plan).await
    });
    Ok(Json(done.await?))
}
