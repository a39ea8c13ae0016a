use oma_api::{ChangeUser, CreateToken, CreateUser, Secret, TokenRow, token_id};
use oma_core::{Clock as _, Error, ErrorKind, OperationId, Result, SystemClock, TokenId};

use super::Remote;
use super::advised::advised;
use super::patience::patiently;
use crate::args::{AddUserArgs, ChangeUserArgs, TokenArgs, TokensArgs, UsersArgs, UsersCommand};
use crate::command::users::{find, password, show, show_tokens, tell_revoked, tell_token};

/// Accounts and their tokens.
pub(super) async fn run(remote: &Remote, args: &UsersArgs) -> Result<()> {
    match &args.command {
        UsersCommand::List => show(&remote.appliance.users().await?, remote.json),
        UsersCommand::Add(args) => add(remote, args).await,
        UsersCommand::Change(args) => change(remote, args).await,
        UsersCommand::Token(args) => token(remote, args).await,
        UsersCommand::Tokens(args) => tokens(remote, args).await,
        UsersCommand::Revoke(args) => revoke(remote, &args.id).await,
    }
}

/// By this key a request is known when it is made again.
fn key() -> OperationId {
    OperationId::mint()
}

async fn typed(is_wanted: bool) -> Result<Option<Secret>> {
    if is_wanted { password().await.map(Some) } else { Ok(None) }
}

async fn add(remote: &Remote, args: &AddUserArgs) -> Result<()> {
    if find(&remote.appliance.users().await?, &args.email).is_ok() {
        return Err(Error::new(ErrorKind::AlreadyExists, "add user", &args.email)
            .because("there is one of this address; `oma users change` changes it"));
    }
    let user = CreateUser {
        email: args.email.to_string(),
        full_name: args.name.clone(),
        role: args.role,
        password: typed(args.password_stdin).await?,
    };
    let key = key();
    let added = patiently(async || remote.appliance.add_user(key.as_str(), &user).await).await?;
    show(&[added], remote.json)
}

async fn change(remote: &Remote, args: &ChangeUserArgs) -> Result<()> {
    let users = remote.appliance.users().await?;
    let user = find(&users, &args.email)?;
    let password = typed(args.password_stdin).await?;
    let change = ChangeUser { full_name: None, role: args.role, is_active: args.active, password };
    let mut asked = 0;
    let ask = async || {
        asked += 1;
        remote.appliance.change_user(user.id, &change).await
    };
    let changed = patiently(ask).await.map_err(|error| unknown(error, asked))?;
    show(&[changed], remote.json)
}

async fn tokens(remote: &Remote, args: &TokensArgs) -> Result<()> {
    let users = remote.appliance.users().await?;
    let of = args.email.as_ref().map(|email| find(&users, email)).transpose()?.map(|user| user.id);
    show_tokens(&remote.appliance.tokens(of).await?, &users, remote.json)
}

async fn token(remote: &Remote, args: &TokenArgs) -> Result<()> {
    let users = remote.appliance.users().await?;
    let user = find(&users, &args.email)?;
    let token = CreateToken {
        name: args.name.clone(),
        role: args.role.unwrap_or(user.role),
        days: args.days,
        user_id: Some(user.id),
        jobs: Vec::new(),
    };
    let key = key();
    let mut asked = 0;
    let ask = async || {
        asked += 1;
        remote.appliance.make_token(key.as_str(), &token).await
    };
    match patiently(ask).await {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(lost(error.resource())),
        Err(error) if asked > 1 || error.kind() == ErrorKind::Unavailable => {
            let id = token_id(user.id, key.as_str());
            Err(advised(
                &error,
                format_args!("it may have been made: `oma users revoke {id}` revokes it then"),
            ))
        }
        made => tell_token(&made?, remote.json),
    }
}

/// Why it is not known whether a change was made that was asked for so often.
fn unknown(error: Error, asked: u32) -> Error {
    if asked == 1 || error.kind() != ErrorKind::PermissionDenied {
        return error;
    }
    advised(&error, "it was done, or your right ended before it was; see `oma audit list`")
}

/// It was made, and the answer with its secret did not come.
fn lost(id: &str) -> Error {
    Error::new(ErrorKind::AlreadyExists, "make token", id).because(format!(
        "it was made, and the answer with its secret was lost: `oma users revoke {id}`, and make another one"
    ))
}

async fn revoke(remote: &Remote, id: &TokenId) -> Result<()> {
    let before = remote.appliance.token(id).await?;
    let mut asked = 0;
    let ask = async || {
        asked += 1;
        remote.appliance.revoke_token(id).await
    };
    patiently(ask).await.map_err(|error| unknown(error, asked))?;
    let row = match remote.appliance.token(id).await {
        // It was the one that is shown here: the appliance tells its bearer no more.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            TokenRow { revoked_at: Some(SystemClock.now().to_string()), ..before }
        }
        row => row?,
    };
    tell_revoked(&row, remote.json)
}
