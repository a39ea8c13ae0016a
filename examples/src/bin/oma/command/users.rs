//! `oma users` on the database itself. Every change is an entry of the audit trail, recorded before it.

use std::collections::BTreeSet;
use std::env;
use std::time::Duration;

use futures_util::TryStreamExt;
use oma_api::server::{NewToken, Passwords};
use oma_api::{NewTokenRow, Secret, TokenRow, UserRow};
use oma_core::record::{AccessToken, Email, PasswordHash, TokenHash, TokenSpec, User, UserChange, UserSpec};
use oma_core::state::TokenKind;
use oma_core::traits::Accounts;
use oma_core::{Error, ErrorKind, Result, TokenId};
use oma_store::SqlStore;
use serde_json::json;

use super::Context;
use crate::args::{AddUserArgs, ChangeUserArgs, TokenArgs, UsersArgs, UsersCommand};
use crate::table::{Align, Table};
use oma_examples::database::{Database, VARIABLE};
use oma_examples::failure::io_error;
use oma_examples::output;
use oma_examples::trail::{entry, recorded};

pub(super) async fn run(context: &Context, args: &UsersArgs) -> Result<()> {
    let database = Database::choose(&context.data, args.database.as_deref(), env::var(VARIABLE))?;
    if let UsersCommand::List | UsersCommand::Tokens(_) = args.command {
        let store = SqlStore::open_read_only(&database.config).await?;
        let done = look(context, &store, &args.command).await;
        store.close().await;
        return done;
    }
    let (store, lock) = database.open().await?;
    let done = match &args.command {
        UsersCommand::List | UsersCommand::Tokens(_) => look(context, &store, &args.command).await,
        UsersCommand::Add(args) => add(context, &store, args).await,
        UsersCommand::Change(args) => change(context, &store, args).await,
        UsersCommand::Token(args) => token(context, &store, args).await,
        UsersCommand::Revoke(args) => revoke(context, &store, &args.id).await,
    };
    store.close().await;
    drop(lock);
    done
}

/// What changes nothing.
async fn look(context: &Context, store: &SqlStore, command: &UsersCommand) -> Result<()> {
    let users: Vec<User> = store.users(None).try_collect().await?;
    let users: Vec<_> = users.iter().map(UserRow::from).collect();
    let UsersCommand::Tokens(args) = command else { return show(&users, context.json) };
    let of = args.email.as_ref().map(|email| find(&users, email)).transpose()?.map(|user| user.id);
    let tokens: Vec<AccessToken> = store.tokens(of, None).try_collect().await?;
    show_tokens(&tokens.iter().map(TokenRow::from).collect::<Vec<_>>(), &users, context.json)
}

/// Prints users, wherever they are from.
pub(crate) fn show(rows: &[UserRow], json: bool) -> Result<()> {
    if json {
        return output::json(&rows);
    }
    let left = |name| (name, Align::Left);
    let mut table = Table::new(&[
        ("id", Align::Right),
        left("email"),
        left("name"),
        left("role"),
        left("active"),
        left("last login"),
    ]);
    for row in rows {
        let active = if row.is_active { "yes" } else { "no" };
        let login = row.last_login_at.clone().unwrap_or_default();
        table.row([
            row.id.to_string(),
            row.email.clone(),
            row.full_name.clone(),
            row.role.to_string(),
            active.to_owned(),
            login,
        ]);
    }
    output::line(table)
}

/// Prints tokens and sessions of these users, wherever they are from.
pub(crate) fn show_tokens(rows: &[TokenRow], users: &[UserRow], json: bool) -> Result<()> {
    if json {
        return output::json(&rows);
    }
    let columns = ["id", "user", "kind", "name", "role", "good until", "last used", "revoked"];
    let mut table = Table::new(&columns.map(|name| (name, Align::Left)));
    for row in rows {
        let user = users.iter().find(|user| user.id == row.user_id);
        table.row([
            row.id.to_string(),
            user.map(|user| user.email.clone()).unwrap_or_default(),
            row.kind.to_string(),
            row.name.clone(),
            row.role.to_string(),
            row.expires_at.clone(),
            row.last_used_at.clone().unwrap_or_default(),
            row.revoked_at.clone().unwrap_or_default(),
        ]);
    }
    output::line(table)
}

async fn add(context: &Context, store: &SqlStore, args: &AddUserArgs) -> Result<()> {
    let password_hash = match args.password_stdin {
        true => hashed().await?,
        false => PasswordHash::none(),
    };
    let spec =
        UserSpec { email: args.email.clone(), full_name: args.name.clone(), role: args.role, password_hash };
    let new = json!({ "full_name": spec.full_name, "role": spec.role, "has_password": args.password_stdin });
    let entry = entry("user.create", "user", &spec.email, new);
    let user = recorded(store, entry, store.add_user(&spec)).await?;
    show(&[UserRow::from(&user)], context.json)
}

async fn change(context: &Context, store: &SqlStore, args: &ChangeUserArgs) -> Result<()> {
    let user = known(store, &args.email).await?;
    let password_hash = match args.password_stdin {
        true => Some(hashed().await?),
        false => None,
    };
    let new = json!({ "role": args.role, "is_active": args.active, "has_password": args.password_stdin });
    let entry = entry("user.change", "user", &user.email, new);
    let change = UserChange { full_name: None, role: args.role, is_active: args.active, password_hash };
    let changed = recorded(store, entry, store.change_user(user.id, &change)).await?;
    show(&[UserRow::from(&changed)], context.json)
}

async fn token(context: &Context, store: &SqlStore, args: &TokenArgs) -> Result<()> {
    let user = known(store, &args.email).await?;
    let secret = NewToken::mint();
    let spec = TokenSpec {
        id: TokenId::mint(),
        kind: TokenKind::Api,
        name: args.name.clone(),
        role: args.role.unwrap_or(user.role),
        hash: TokenHash::of(secret.reveal()),
        jobs: BTreeSet::new(),
        lifetime: Duration::from_secs(u64::from(args.days) * 86_400),
        address: None,
    };
    let new = json!({ "user_id": user.id, "name": spec.name, "role": spec.role, "days": args.days });
    let entry = entry("token.create", "token", &spec.id, new);
    let token = TokenRow::from(&recorded(store, entry, store.mint(user.id, &spec)).await?);
    tell_token(&NewTokenRow { secret: Secret::new(secret.reveal()), token }, context.json)
}

/// The only time that a secret is shown.
pub(crate) fn tell_token(made: &NewTokenRow, json: bool) -> Result<()> {
    if json {
        return output::json(made);
    }
    let token = &made.token;
    output::note(format_args!("token {}, good until {}; it is shown this once", token.id, token.expires_at));
    output::line(made.secret.reveal())
}

async fn revoke(context: &Context, store: &SqlStore, id: &TokenId) -> Result<()> {
    let unknown = || Error::new(ErrorKind::NotFound, "find token", id);
    let found = store.token(id).await?.ok_or_else(unknown)?;
    let entry = entry("token.revoke", "token", id, json!({ "user_id": found.user }));
    let row = TokenRow::from(&recorded(store, entry, store.revoke(id)).await?);
    tell_revoked(&row, context.json)
}

/// A token is good no more.
pub(crate) fn tell_revoked(row: &TokenRow, json: bool) -> Result<()> {
    if json {
        return output::json(row);
    }
    let since = row.revoked_at.as_deref().unwrap_or_default();
    output::line(format_args!("token {} is revoked since {since}", row.id))
}

async fn known(store: &SqlStore, email: &Email) -> Result<User> {
    let found = store.credentials(email).await?;
    found.map(|known| known.user).ok_or_else(|| nobody(email))
}

/// The user of an address, among all of them.
pub(crate) fn find<'a>(users: &'a [UserRow], email: &Email) -> Result<&'a UserRow> {
    users.iter().find(|user| user.email == email.as_str()).ok_or_else(|| nobody(email))
}

/// There is no such user.
fn nobody(email: &Email) -> Error {
    Error::new(ErrorKind::NotFound, "find user", email)
        .because("there is none; `oma users list` lists who there is")
}

/// The hash of the line on standard input.
async fn hashed() -> Result<PasswordHash> {
    let password = password().await?;
    Passwords::new().await?.hash(&password).await
}

/// The line on standard input.
pub(crate) async fn password() -> Result<Secret> {
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map(|_| line)
    });
    let line = read.await.unwrap_or_else(|lost| Err(std::io::Error::other(lost)));
    let line = line.map_err(|error| io_error("read", "standard input", error))?;
    Ok(Secret::new(line.trim_end_matches(['\r', '\n'])))
}
