//! Tokens are made, listed and removed in the data directory, also while a daemon serves it. Each change is an entry of the audit trail.

use std::env;
use std::time::Duration;

use crate::data_dir::DataDir;
use crate::database::{Database, VARIABLE};
use crate::output;
use crate::trail::{self, entry, recorded};
use clap::{Args, Subcommand};
use oma_api::server::{KnownToken, NewToken, Role, TokenFile};
use oma_core::audit::AuditEntry;
use oma_core::traits::AuditLog as _;
use oma_core::{Clock as _, Error, ErrorKind, Result, SystemClock};
use serde_json::json;

/// Tokens of a data directory.
#[derive(Debug, Args)]
pub struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token and print it: the only time that it can be read
    Add(AddArgs),
    /// List whom there are tokens for
    List,
    /// Take a token away
    Remove(RemoveArgs),
}

#[derive(Debug, Args)]
struct AddArgs {
    /// Who it is for
    #[arg(value_name = "NAME")]
    name: String,
    /// What it lets do: look, change volumes, or all
    #[arg(long, value_name = "ROLE", value_parser = role)]
    role: Role,
    /// How many days it is good; until it is removed when it is not said
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..))]
    days: Option<u16>,
}

#[derive(Debug, Args)]
struct RemoveArgs {
    /// Who it is for
    #[arg(value_name = "NAME")]
    name: String,
}

fn role(text: &str) -> Result<Role, String> {
    // Agents have jobs, which the tokens of a data directory name none of.
    let known = Role::ALL.iter().copied().find(|role| role.as_str() == text && *role > Role::Agent);
    known.ok_or_else(|| format!("{text:?} is no role; there are viewer, operator and admin"))
}

/// The tokens of a data directory; where there is none yet, an operator is told.
///
/// # Errors
/// What the data directory answers.
pub async fn known(program: &str, data: &DataDir) -> Result<TokenFile> {
    let tokens = TokenFile::new(data.tokens());
    if tokens.tokens().await?.is_empty() {
        output::note(format!("nobody has a token yet; make one with `{program} token add NAME --role ROLE`"));
    }
    Ok(tokens)
}

/// Does what was asked; `database` is named on the command line.
///
/// # Errors
/// `NotFound` for a name that has no token; what the data directory and the database answer.
pub async fn run(program: &str, data: &DataDir, database: Option<&str>, args: &TokenArgs) -> Result<()> {
    let file = TokenFile::new(data.tokens());
    match &args.command {
        TokenCommand::Add(args) => {
            data.make()?;
            let new = json!({ "role": args.role, "days": args.days });
            let entry = entry("token.create", "token", &args.name, new);
            output::line(added(&file, args, data, database, entry).await?.reveal())
        }
        TokenCommand::List => file.tokens().await?.iter().try_for_each(show),
        TokenCommand::Remove(RemoveArgs { name }) => match file.remove(name).await? {
            // The entry comes behind it: whoever was robbed is not kept waiting for a database.
            true => removed(data, database, name).await,
            false => Err(Error::new(ErrorKind::NotFound, "remove token", name)
                .because(format!("there is none of this name; `{program} token list` lists what there is"))),
        },
    }
}

async fn added(
    file: &TokenFile,
    args: &AddArgs,
    data: &DataDir,
    database: Option<&str>,
    entry: AuditEntry,
) -> Result<NewToken> {
    let days = args.days.map(|days| Duration::from_hours(u64::from(days) * 24));
    let add = file.add(&args.name, args.role, days.map(|days| SystemClock.now().after(days)));
    let database = Database::choose(data, database, env::var(VARIABLE))?;
    // Before a daemon's first start there is nothing that anybody could do with it.
    let Some(trail) = trail::open(&database).await? else { return add.await };
    let added = recorded(&trail, entry, add).await;
    trail.close().await;
    added
}

async fn removed(data: &DataDir, database: Option<&str>, name: &str) -> Result<()> {
    let told = async {
        let database = Database::choose(data, database, env::var(VARIABLE))?;
        let Some(trail) = trail::open(&database).await? else { return Ok(()) };
        let told = trail.audit(&entry("token.revoke", "token", &name, json!({}))).await;
        trail.close().await;
        told.map(drop)
    };
    told.await.inspect_err(|_| output::note("it is removed, and the audit trail has no entry of it:"))
}

fn show(token: &KnownToken) -> Result<()> {
    let KnownToken { principal, until } = token;
    let until = match until {
        Some(until) if *until <= SystemClock.now() => format!(" ended {until}"),
        Some(until) => format!(" until {until}"),
        None => String::new(),
    };
    output::line(format_args!("{} {}{until}", principal.name, principal.role))
}
