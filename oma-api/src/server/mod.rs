//! The routes of the programs under [`PREFIX`], and the OpenAPI document of those that are served.
//!
//! ```text
//!  Api      groups of routes and their document
//!  Door     who is let in: by token, or by the way the request came
//!  listen   sockets, TLS, as many connections as may be, and an end that lets answers finish
//! ```
#![allow(unused_qualifications, reason = "macros of utoipa and axum write paths out")]

mod access;
mod accounts;
mod asked;
mod audit;
mod backend;
mod bounded;
mod cleanups;
mod conditional;
mod exports;
mod extract;
mod figures;
mod listen;
mod metered;
mod origin;
mod paging;
mod points;
mod problem;
mod problems;
mod publish;
mod readiness;
mod replications;
mod to_its_end;
mod tokens;
mod traced;
mod turns;
mod vanished;
mod volumes;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, middleware};
use oma_core::traits::AuditLog;
use oma_core::{Error, ErrorKind};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder};
use utoipa_axum::router::OpenApiRouter;

pub use access::{Account, Authenticator, Door, Principal, Role};
pub use accounts::{AccountRoutes, AccountTokens, AnyOf, LoginConfig, Passwords, first_admin};
pub use backend::BackendRoutes;
pub use cleanups::CleanupRoutes;
pub use exports::{ExportRoutes, JobExports};
pub use figures::Figures;
pub use listen::{ListenConfig, TlsIdentity, serve_tcp, serve_unix};
pub use origin::Origin;
pub use points::PointRoutes;
pub use publish::{ExportAddress, Publisher};
pub use readiness::Readiness;
pub use replications::{AgentJobs, RecordedRequests, ReplicationRoutes, SourceOpener};
pub use tokens::{KnownToken, NewToken, TokenFile};
pub use volumes::VolumeRoutes;

use audit::Auditor;
use conditional::Conditions;
use problem::Refused;
use turns::Turns;

/// Where the routes begin.
pub const PREFIX: &str = "/api/v1";

/// Groups of routes, to be served through one door or several.
#[derive(Clone)]
pub struct Api {
    document: OpenApi,
    /// For principals, as far as their role goes.
    inner: Router,
    /// As `inner`, and for agents, which its handlers show their own jobs only.
    agents: Router,
    /// For principals that look and change by their role, and recorded by its handlers themselves.
    kept: Router,
    /// For every principal, whatever its role, and recorded by its handlers themselves.
    personal: Router,
    /// Records what `inner` changes.
    auditor: Option<Auditor>,
    /// For everybody.
    open: Router,
    figures: Figures,
    turns: Turns,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let routes: Vec<_> = self.document.paths.paths.keys().collect();
        f.debug_struct("Api").field("routes", &routes).finish_non_exhaustive()
    }
}

impl Api {
    /// No route yet but the document's.
    #[must_use]
    pub fn new(title: &str) -> Self {
        let info = InfoBuilder::new().title(title).version(env!("CARGO_PKG_VERSION")).build();
        let token = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        let components =
            problems::components(ComponentsBuilder::new().security_scheme("token", token)).build();
        let security = [SecurityRequirement::new("token", Vec::<String>::new())];
        let document = OpenApiBuilder::new().info(info).components(Some(components)).security(Some(security));
        let [inner, agents, kept, personal, open] = std::array::from_fn(|_| Router::new());
        Self {
            document: document.build(),
            inner,
            agents,
            kept,
            personal,
            auditor: None,
            open,
            figures: Figures::new(),
            turns: Turns::default(),
        }
    }

    /// The same routes, whose document has another title.
    #[must_use]
    pub fn titled(mut self, title: &str) -> Self {
        title.clone_into(&mut self.document.info.title);
        self
    }

    /// What is asked is counted there, and told at `/metrics`.
    #[must_use]
    pub fn counted_by(mut self, figures: Figures) -> Self {
        figures.take_over(&self.figures);
        self.figures = figures;
        let metrics = self.described(figures::group(self.figures.clone()));
        // Where collectors look unasked.
        self.inner = self.inner.merge(metrics.clone()).nest(PREFIX, metrics);
        self
    }

    /// Every change of a route leaves an entry in this trail, before it is made; what cannot be recorded is not done (L30).
    #[must_use]
    pub fn audited(mut self, trail: Arc<dyn AuditLog>) -> Self {
        self.auditor = Some(Auditor::new(trail));
        self
    }

    /// With logins, users, tokens and the audit trail, in which the changes of all routes are recorded from now on.
    #[must_use]
    pub fn accounts(mut self, routes: AccountRoutes) -> Self {
        self.auditor = Some(routes.auditor());
        let groups =
            [accounts::open(routes.clone()), accounts::personal(routes.clone()), accounts::group(routes)];
        let [open, personal, kept] = groups.map(|group| self.described(group));
        self.open = self.open.nest(PREFIX, open);
        self.personal = self.personal.nest(PREFIX, personal);
        self.kept = self.kept.nest(PREFIX, kept);
        self
    }

    /// With volumes, operations and VMs, and with the daemon's health and figures.
    #[must_use]
    pub fn volumes(mut self, routes: VolumeRoutes) -> Self {
        self.add_open(volumes::open(routes.clone()));
        self.figures.look_up(volumes::Standing(routes.clone()));
        self.with(volumes::group(routes))
    }

    /// What load balancers look at unasked, with the prefix and without.
    fn add_open(&mut self, group: OpenApiRouter) {
        let open = self.described(group);
        self.open = std::mem::take(&mut self.open).merge(open.clone()).nest(PREFIX, open);
    }

    fn with(mut self, group: OpenApiRouter) -> Self {
        let routes = self.described(group);
        self.inner = self.inner.nest(PREFIX, routes);
        self
    }

    /// The same for routes that agents use too.
    fn with_agents(mut self, group: OpenApiRouter) -> Self {
        let routes = self.described(group);
        self.agents = self.agents.nest(PREFIX, routes);
        self
    }

    /// The routes of a group, which is in the document from now on. Two groups may have methods of one path: `OpenApi::nest` alone would
    /// forget those of the first.
    fn described(&mut self, group: OpenApiRouter) -> Router {
        let (routes, document) = group.split_for_parts();
        self.document.merge(OpenApi::default().nest(PREFIX, document));
        routes
    }

    /// What is served, as an OpenAPI document.
    #[must_use]
    pub fn document(&self) -> OpenApi {
        conditional::described(problems::described(self.document.clone()))
    }

    /// The routes behind a door.
    pub fn router(&self, door: Door) -> Router {
        let document = self.document();
        let [mut inner, mut agents] = [self.inner.clone(), self.agents.clone()];
        let [mut kept, mut personal] = [self.kept.clone(), self.personal.clone()];
        let looks = inner.clone().merge(agents.clone()).merge(kept.clone()).merge(personal.clone());
        if let Some(auditor) = &self.auditor {
            inner = inner.layer(middleware::from_fn_with_state(auditor.clone(), audit::audited));
            agents = agents.layer(middleware::from_fn_with_state(auditor.clone(), audit::audited));
        }
        let conditions = Conditions { looks, turns: self.turns.clone() };
        for routes in [&mut inner, &mut agents, &mut kept, &mut personal] {
            let checked = middleware::from_fn_with_state(conditions.clone(), conditional::checked);
            *routes = std::mem::take(routes).layer(checked);
        }
        let agents = agents.layer(middleware::from_fn_with_state(door.clone(), access::admit_agents));
        let inner = inner
            .merge(kept)
            .route(&format!("{PREFIX}/openapi.json"), get(async move || Json(document)))
            .layer(middleware::from_fn_with_state(door.clone(), access::admit));
        let personal = personal.layer(middleware::from_fn_with_state(door, access::admit_any));
        inner
            .merge(agents)
            .merge(personal)
            .merge(self.open.clone())
            .fallback(unknown)
            .method_not_allowed_fallback(not_allowed)
            .layer(middleware::from_fn_with_state(self.figures.clone(), figures::counted))
    }
}

async fn unknown(uri: axum::http::Uri) -> Refused {
    let reason = format!("there is no such route; {PREFIX}/openapi.json lists what there is");
    Error::new(ErrorKind::NotFound, "find", uri.path()).because(reason).into()
}

async fn not_allowed(method: axum::http::Method, uri: axum::http::Uri) -> Refused {
    let error = Error::new(ErrorKind::Unsupported, format!("{method}"), uri.path());
    Refused::from(error.because("this route has other methods")).with_status(StatusCode::METHOD_NOT_ALLOWED)
}
