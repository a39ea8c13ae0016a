use std::net::IpAddr;
use std::time::Duration;

use oma_core::record::{AccessToken, Bearer, Login, TokenHash, TokenSpec, User};
use oma_core::state::Role;
use oma_core::{JobId, Timestamp, TokenId, UserId};

use super::users::user;
use crate::db::{Row, Tx, vals};
use crate::error::{Result, StoreError};
use crate::record::job;
use crate::sql::{accounts, jobs};
use crate::store::SqlStore;

/// What is noted of a token's use may be so old: not every request writes.
const NOTED: Duration = Duration::from_secs(60);

impl SqlStore {
    pub(super) async fn insert_token(&self, user: UserId, spec: &TokenSpec) -> Result<AccessToken> {
        let mut tx = self.begin().await?;
        // Nobody deactivates or demotes it meanwhile.
        tx.execute(accounts::LOCK_USER, vals![user]).await?;
        let known = tx.find(accounts::USER, vals![user], self::user).await?;
        let known = known.ok_or_else(|| StoreError::missing("user", &user))?;
        if !known.is_active {
            return Err(StoreError::Conflict("the user is not active; activate it first".to_owned()));
        }
        let token = insert(&mut tx, &known, spec).await?;
        tx.commit().await?;
        Ok(token)
    }

    pub(super) async fn begin_session(&self, login: &Login) -> Result<AccessToken> {
        let mut tx = self.begin().await?;
        let now = tx.now().await?;
        let is_same =
            tx.execute(accounts::LOGGED_IN, vals![now, login.user, login.password_hash.reveal()]).await? > 0;
        let known = tx.find(accounts::USER, vals![login.user], user).await?.filter(|_| is_same);
        let session = insert(&mut tx, &known.ok_or(StoreError::OtherAccount)?, &login.session).await?;
        tx.execute(accounts::FORGET_ATTEMPTS, vals![login.subject]).await?;
        tx.commit().await?;
        Ok(session)
    }

    pub(super) async fn find_bearer(&self, hash: &TokenHash) -> Result<Option<Bearer>> {
        let mut tx = self.db.snapshot().await?;
        let Some(token) = tx.find(accounts::TOKEN_BY_HASH, vals![hash], token).await? else {
            return Ok(None);
        };
        let now = tx.now().await?;
        let Some(user) = tx.find(accounts::USER, vals![token.user], user).await? else {
            return Ok(None);
        };
        if token.revoked_at.is_some() || token.expires_at <= now || !user.is_active {
            return Ok(None);
        }
        let jobs = tx.all(accounts::JOBS, vals![token.id], seen).await?.into_iter().collect();
        drop(tx);
        self.note_use(&token, now).await;
        let role = token.role.min(user.role);
        Ok(Some(Bearer { user, token, role, jobs }))
    }

    /// Notes that a token was used, unless that was just noted. It is a note: what keeps it from being written keeps nobody out.
    async fn note_use(&self, token: &AccessToken, now: Timestamp) {
        if token.last_used_at.is_some_and(|noted| noted.after(NOTED) > now) {
            return;
        }
        let noted = self.settled(|| async {
            let mut tx = self.begin().await?;
            tx.execute(accounts::USED, vals![now, token.id]).await?;
            tx.commit().await
        });
        if let Err(error) = noted.await {
            tracing::warn!(token = %token.id, error = %error, "its use is not noted");
        }
    }

    pub(super) async fn find_token(&self, id: &TokenId) -> Result<Option<AccessToken>> {
        self.db.find(accounts::TOKEN, vals![id], token).await
    }

    pub(super) async fn token_page(
        &self,
        user: Option<UserId>,
        behind: Option<TokenId>,
        limit: i64,
    ) -> Result<Vec<AccessToken>> {
        let behind = behind.map_or(String::new(), String::from);
        match user {
            None => self.db.all(accounts::TOKENS, vals![behind, limit], token).await,
            Some(user) => self.db.all(accounts::TOKENS_OF_USER, vals![user, behind, limit], token).await,
        }
    }

    pub(super) async fn revoke_token(&self, id: &TokenId) -> Result<AccessToken> {
        let mut tx = self.begin().await?;
        let now = tx.now().await?;
        tx.execute(accounts::REVOKE, vals![now, id]).await?;
        let found = tx.find(accounts::TOKEN, vals![id], token).await?;
        let found = found.ok_or_else(|| StoreError::missing("token", id))?;
        tx.commit().await?;
        Ok(found)
    }

    pub(super) async fn grant_job(&self, id: &TokenId, job: &JobId) -> Result<()> {
        let mut tx = self.begin().await?;
        let found = tx.find(accounts::TOKEN, vals![id], token).await?;
        found.ok_or_else(|| StoreError::missing("token", id))?;
        let is_new = tx.find(accounts::GRANTED, vals![id, job], |_| Ok(())).await?.is_none();
        if is_new {
            let_see(&mut tx, id, job).await?;
        }
        tx.commit().await
    }

    pub(super) async fn forget(&self, before: Timestamp) -> Result<u64> {
        let mut tx = self.begin().await?;
        let mut gone = 0;
        for sql in [accounts::FORGET_EXPIRED, accounts::FORGET_REVOKED] {
            gone += tx.execute(sql, vals![before]).await?;
        }
        tx.execute(accounts::FORGET_OLD_ATTEMPTS, vals![before]).await?;
        tx.commit().await?;
        Ok(gone)
    }
}

/// Refuses a token that may more than its user.
pub(super) fn check_role(token: Role, user: Role) -> Result<()> {
    if token <= user {
        return Ok(());
    }
    let reason = format!("a token may not do more than its user, who is {user}");
    Err(StoreError::Invalid(reason))
}

/// Records a token of a user whose row is locked, or new.
pub(super) async fn insert(tx: &mut Tx, user: &User, spec: &TokenSpec) -> Result<AccessToken> {
    check_role(spec.role, user.role)?;
    for (sql, value) in
        [(accounts::TOKEN, spec.id.to_string()), (accounts::TOKEN_BY_HASH, spec.hash.to_hex())]
    {
        if tx.find(sql, vals![value], |_| Ok(())).await?.is_some() {
            return Err(StoreError::exists("token", &spec.id));
        }
    }
    let now = tx.now().await?;
    let address = spec.address.map(|address| address.to_canonical().to_string());
    let values = vals![
        spec.id,
        user.id,
        spec.kind,
        spec.name,
        spec.role,
        spec.hash,
        address,
        now,
        now.after(spec.lifetime),
    ];
    tx.execute(accounts::MINT, values).await?;
    for job in &spec.jobs {
        let_see(tx, &spec.id, job).await?;
    }
    let made = tx.find(accounts::TOKEN, vals![spec.id], token).await?;
    made.ok_or_else(|| StoreError::missing("token", &spec.id))
}

async fn let_see(tx: &mut Tx, token: &TokenId, id: &JobId) -> Result<()> {
    if tx.find(jobs::BY_ID, vals![id], job).await?.is_none() {
        return Err(StoreError::missing("job", id));
    }
    tx.execute(accounts::GRANT, vals![token, id]).await.map(|_| ())
}

fn seen(row: &Row) -> Result<JobId> {
    row.fields("token_jobs", "id").parse("job_id")
}

fn token(row: &Row) -> Result<AccessToken> {
    let fields = row.fields("access_tokens", "id");
    Ok(AccessToken {
        id: fields.parse("id")?,
        user: UserId(fields.count("user_id")?),
        kind: fields.parse("kind")?,
        name: fields.text("name")?.to_owned(),
        role: fields.parse("role")?,
        address: fields.opt_parse::<IpAddr>("ip_address")?,
        created_at: fields.time("created_at")?,
        expires_at: fields.time("expires_at")?,
        last_used_at: fields.opt_time("last_used_at")?,
        revoked_at: fields.opt_time("revoked_at")?,
    })
}
