use oma_core::record::{
    AccessToken, Credentials, Email, PasswordHash, TokenSpec, User, UserChange, UserSpec,
};
use oma_core::state::Role;
use oma_core::{Timestamp, UserId};

use super::tokens::{check_role, insert};
use crate::db::{Row, Tx, vals};
use crate::error::{Result, StoreError};
use crate::sql::{accounts, meta};
use crate::store::SqlStore;

/// The row of `oma_meta` that whoever adds the first user, or takes an admin's rights, locks.
const ACCOUNTS: &str = "accounts";

impl SqlStore {
    pub(super) async fn insert_user(&self, spec: &UserSpec) -> Result<User> {
        let mut tx = self.begin().await?;
        let user = add(&mut tx, spec).await?;
        tx.commit().await?;
        Ok(user)
    }

    pub(super) async fn insert_first_user(
        &self,
        spec: &UserSpec,
        token: &TokenSpec,
    ) -> Result<Option<(User, AccessToken)>> {
        let mut tx = self.begin().await?;
        lock(&mut tx).await?;
        if tx.find(accounts::ANY_USER, vals![0], |_| Ok(())).await?.is_some() {
            // What the lock row may have needed stays.
            tx.commit().await?;
            return Ok(None);
        }
        check_role(token.role, spec.role)?;
        let user = add(&mut tx, spec).await?;
        let token = insert(&mut tx, &user, token).await?;
        tx.commit().await?;
        Ok(Some((user, token)))
    }

    pub(super) async fn find_user(&self, id: UserId) -> Result<Option<User>> {
        self.db.find(accounts::USER, vals![id], user).await
    }

    pub(super) async fn find_credentials(&self, email: &Email) -> Result<Option<Credentials>> {
        self.db.find(accounts::USER_BY_EMAIL, vals![email], credentials).await
    }

    pub(super) async fn user_page(&self, behind: Option<UserId>, limit: i64) -> Result<Vec<User>> {
        self.db.all(accounts::USERS, vals![behind.unwrap_or(UserId::FIRST), limit], user).await
    }

    pub(super) async fn update_user(&self, id: UserId, change: &UserChange) -> Result<User> {
        let mut tx = self.begin().await?;
        lock(&mut tx).await?;
        let missing = || StoreError::missing("user", &id);
        let known = tx.find(accounts::USER, vals![id], credentials).await?.ok_or_else(missing)?;
        let now = tx.now().await?;
        let changed = changed(&known, change, now);
        if is_admin(&known.user) && !is_admin(&changed.user) {
            keep_an_admin(&mut tx, id).await?;
        }
        let Credentials { user, password_hash } = changed;
        let values = vals![
            password_hash.reveal(),
            user.full_name,
            user.role,
            user.is_active,
            user.updated_at,
            user.id
        ];
        tx.execute(accounts::CHANGE_USER, values).await?;
        if change.password_hash.is_some() || change.is_active == Some(false) {
            tx.execute(accounts::END_SESSIONS, vals![now, id]).await?;
        }
        tx.commit().await?;
        Ok(user)
    }

    pub(super) async fn delete_user(&self, id: UserId) -> Result<()> {
        let mut tx = self.begin().await?;
        lock(&mut tx).await?;
        let Some(known) = tx.find(accounts::USER, vals![id], user).await? else {
            return tx.commit().await;
        };
        if is_admin(&known) {
            keep_an_admin(&mut tx, id).await?;
        }
        for sql in [accounts::RUN_OF_USER, accounts::TICKET_OF_USER] {
            if tx.find(sql, vals![id], |_| Ok(())).await?.is_some() {
                let reason = "runs or tickets are this user's; deactivate it instead".to_owned();
                return Err(StoreError::Conflict(reason));
            }
        }
        tx.execute(accounts::REMOVE_USER, vals![id]).await?;
        tx.commit().await
    }
}

/// Keeps others from doing the same for the rest of the transaction.
async fn lock(tx: &mut Tx) -> Result<()> {
    if tx.find(meta::LOCK, vals![ACCOUNTS], |_| Ok(())).await?.is_none() {
        // Of several that are the first, one writes it, and the others are undone and come again.
        tx.execute(meta::SET, vals![ACCOUNTS, "locked by whoever changes users"]).await?;
    }
    Ok(())
}

async fn add(tx: &mut Tx, spec: &UserSpec) -> Result<User> {
    if tx.find(accounts::USER_BY_EMAIL, vals![spec.email], |_| Ok(())).await?.is_some() {
        return Err(StoreError::exists("user", &spec.email));
    }
    let now = tx.now().await?;
    let hash = spec.password_hash.reveal();
    tx.execute(accounts::ADD_USER, vals![spec.email, hash, spec.full_name, spec.role, now, now]).await?;
    let added = tx.find(accounts::USER_BY_EMAIL, vals![spec.email], user).await?;
    added.ok_or_else(|| StoreError::missing("user", &spec.email))
}

/// What a user is to be.
fn changed(known: &Credentials, change: &UserChange, now: Timestamp) -> Credentials {
    let Credentials { user, password_hash } = known.clone();
    let user = User {
        full_name: change.full_name.clone().unwrap_or_else(|| user.full_name.clone()),
        role: change.role.unwrap_or(user.role),
        is_active: change.is_active.unwrap_or(user.is_active),
        updated_at: now,
        ..user
    };
    Credentials { user, password_hash: change.password_hash.clone().unwrap_or(password_hash) }
}

fn is_admin(user: &User) -> bool {
    user.is_active && user.role == Role::Admin
}

/// Refuses what leaves nobody who could let others in.
async fn keep_an_admin(tx: &mut Tx, without: UserId) -> Result<()> {
    match tx.find(accounts::OTHER_ADMIN, vals![without], |_| Ok(())).await? {
        Some(()) => Ok(()),
        None => {
            let reason = "no active admin would be left; make another one first".to_owned();
            Err(StoreError::Conflict(reason))
        }
    }
}

pub(super) fn user(row: &Row) -> Result<User> {
    let fields = row.fields("users", "id");
    Ok(User {
        id: UserId(fields.count("id")?),
        email: fields.parse("email")?,
        full_name: fields.text("full_name")?.to_owned(),
        role: fields.parse("role")?,
        is_active: fields.flag("is_active")?,
        last_login_at: fields.opt_time("last_login_at")?,
        created_at: fields.time("created_at")?,
        updated_at: fields.time("updated_at")?,
    })
}

fn credentials(row: &Row) -> Result<Credentials> {
    let fields = row.fields("users", "id");
    let hash = PasswordHash::parse(fields.text("password_hash")?);
    let password_hash = hash.ok_or_else(|| fields.damaged("password_hash", "it is no hash"))?;
    Ok(Credentials { user: user(row)?, password_hash })
}
