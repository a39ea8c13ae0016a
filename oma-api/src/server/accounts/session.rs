//! Logging in and out. An unknown account, a wrong password and an account that is not active are one answer, after the same work.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use oma_core::audit::AuditEntry;
use oma_core::record::{
    Attempt, AttemptLimits, AttemptSubject, Credentials, Email, Login, TokenHash, TokenSpec, UserChange,
};
use oma_core::state::TokenKind;
use oma_core::{Clock, Error, ErrorKind, Retry, SystemClock, Timestamp, TokenId};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AccountRoutes;
use crate::server::audit::{Asker, ClientAddress};
use crate::server::extract::Body;
use crate::server::problem::{Answer, Refused};
use crate::server::problems::{PasswordProblems, Problems};
use crate::server::tokens::NewToken;
use crate::{ChangePassword, LogIn, MeRow, NewTokenRow, Secret, TokenRow};

pub(super) fn open() -> OpenApiRouter<AccountRoutes> {
    OpenApiRouter::new().routes(routes!(log_in))
}

pub(super) fn personal() -> OpenApiRouter<AccountRoutes> {
    OpenApiRouter::new().routes(routes!(log_out)).routes(routes!(me)).routes(routes!(change_password))
}

/// Begin a session. Needs no token. Too many attempts answer 429 and `Retry-After`
#[utoipa::path(post, path = "/auth/login", tag = "auth", security(()), request_body = LogIn,
    responses((status = 200, body = NewTokenRow), PasswordProblems))]
async fn log_in(
    State(routes): State<AccountRoutes>,
    ClientAddress(address): ClientAddress,
    Body(asked): Body<LogIn>,
) -> Answer<impl IntoResponse> {
    let subject = AttemptSubject::account(&asked.email);
    routes.attempts(&subject, address).await?;
    let known = match Email::parse(&asked.email) {
        Ok(email) => routes.accounts.credentials(&email).await?,
        Err(_) => None,
    };
    let hash = known.as_ref().map(|known| &known.password_hash);
    let is_right = routes.passwords.verify(&asked.password, hash).await?;
    let email = known.as_ref().map(|known| known.user.email.clone());
    let Some(known) = known.filter(|known| is_right && known.user.is_active) else {
        routes.note_refusal(email, address).await?;
        return Err(Refused::unauthenticated("address or password is wrong"));
    };
    let begun = routes.session(known, subject, address).await?;
    // No cache on the way keeps it.
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(begun)))
}

/// End the session that is shown
#[utoipa::path(post, path = "/auth/logout", tag = "auth", responses((status = 204), Problems))]
async fn log_out(State(routes): State<AccountRoutes>, asker: Asker) -> Answer<StatusCode> {
    let session = asker.principal.account.as_ref().filter(|account| account.kind == TokenKind::Session);
    let Some(session) = session else {
        return Err(Error::new(ErrorKind::Conflict, "end", "the session")
            .because("what was shown is no session; revoke a token with DELETE /tokens/{token_id}")
            .into());
    };
    let entry = asker.entry("session.end", "session", &session.token);
    routes.auditor.around(entry, routes.accounts.revoke(&session.token)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Who asks
#[utoipa::path(get, path = "/auth/me", tag = "auth", responses((status = 200, body = MeRow), Problems))]
async fn me(asker: Asker) -> Json<MeRow> {
    let jobs = asker.principal.jobs().map(|jobs| jobs.iter().cloned().collect());
    let account = asker.principal.account.as_ref();
    Json(MeRow {
        user_id: account.map(|account| account.user),
        token_id: account.map(|account| account.token.clone()),
        jobs,
        name: asker.principal.name,
        role: asker.principal.role,
    })
}

/// Change the password of whoever asks. Every session of the account ends
#[utoipa::path(post, path = "/auth/password", tag = "auth", request_body = ChangePassword,
    responses((status = 204), PasswordProblems))]
async fn change_password(
    State(routes): State<AccountRoutes>,
    asker: Asker,
    Body(asked): Body<ChangePassword>,
) -> Answer<StatusCode> {
    let refused = |reason| Error::new(ErrorKind::PermissionDenied, "change", "the password").because(reason);
    let account = asker.principal.account.as_ref();
    let account = account.ok_or_else(|| refused("whoever asks has no account"))?;
    let subject = AttemptSubject::account(&asker.principal.name);
    routes.attempts(&subject, asker.address).await?;
    let email = Email::parse(&asker.principal.name).ok();
    let known = match &email {
        Some(email) => routes.accounts.credentials(email).await?,
        None => None,
    };
    let hash = known.as_ref().map(|known| &known.password_hash);
    if !routes.passwords.verify(&asked.current, hash).await? {
        return Err(refused("the current password is wrong").into());
    }
    let password_hash = Some(routes.passwords.hash(&asked.new).await?);
    let change = UserChange { password_hash, ..UserChange::default() };
    let entry = asker.entry("user.password", "user", &asker.principal.name);
    routes.auditor.around(entry, routes.accounts.change_user(account.user, &change)).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl AccountRoutes {
    /// Counts an attempt against the account and the address, before anything is looked at.
    pub(super) async fn attempts(&self, account: &AttemptSubject, address: Option<IpAddr>) -> Answer<()> {
        if let Some(address) = address {
            let limits = self.config.limits(self.config.attempts_per_address);
            self.attempt(&AttemptSubject::address(address), &limits).await?;
        }
        self.attempt(account, &self.config.limits(self.config.attempts_per_account)).await
    }

    async fn attempt(&self, subject: &AttemptSubject, limits: &AttemptLimits) -> Answer<()> {
        match self.accounts.attempt(subject, limits).await? {
            Attempt::Allowed => Ok(()),
            Attempt::Locked { until } => Err(locked(until, limits.lock)),
        }
    }

    /// A wrong attempt is an entry as well. What was typed stands in it only when it is the address of an account.
    async fn note_refusal(&self, email: Option<Email>, address: Option<IpAddr>) -> Answer<()> {
        let entry = AuditEntry {
            actor: "unknown".to_owned(),
            action: "session.refused".to_owned(),
            resource_type: "user".to_owned(),
            resource_id: email.map_or(String::new(), |email| email.to_string()),
            address,
            ..AuditEntry::default()
        };
        self.auditor.record(&entry).await
    }

    async fn session(
        &self,
        known: Credentials,
        subject: AttemptSubject,
        address: Option<IpAddr>,
    ) -> Answer<NewTokenRow> {
        let Credentials { user, password_hash } = known;
        let secret = NewToken::mint();
        let session = TokenSpec {
            id: TokenId::mint(),
            kind: TokenKind::Session,
            name: "login".to_owned(),
            role: user.role,
            hash: TokenHash::of(secret.reveal()),
            jobs: BTreeSet::new(),
            lifetime: self.config.session(),
            address,
        };
        let entry = AuditEntry {
            actor: user.email.to_string(),
            user: Some(user.id),
            action: "session.begin".to_owned(),
            resource_type: "session".to_owned(),
            resource_id: session.id.to_string(),
            address,
            ..AuditEntry::default()
        };
        let login = Login { user: user.id, password_hash, subject, session };
        let token = self.auditor.around(entry, self.accounts.log_in(&login)).await?;
        Ok(NewTokenRow { secret: Secret::new(secret.reveal()), token: TokenRow::from(&token) })
    }
}

/// Too many attempts: the same for an account that is there and one that is not.
fn locked(until: Timestamp, lock: Duration) -> Refused {
    let millis = until.as_millis().saturating_sub(SystemClock.now().as_millis());
    let wait = Duration::from_millis(u64::try_from(millis).unwrap_or_default()).min(lock);
    let error = Error::new(ErrorKind::Busy, "log in", "with a password")
        .because("there were too many attempts; wait as long as Retry-After says")
        .with_retry(Retry::Later);
    Refused::from(error).with_status(StatusCode::TOO_MANY_REQUESTS).with_wait(wait)
}
