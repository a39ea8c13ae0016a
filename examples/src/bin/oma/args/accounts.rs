use clap::{Args, Subcommand};
use oma_core::audit::AuditHead;
use oma_core::record::Email;
use oma_core::state::Role;
use oma_core::{AuditId, TokenId};

const PASSWORD: &str =
    "Read a password, one line, from standard input; arguments are seen by every user of a machine";

#[derive(Debug, Args)]
pub(crate) struct UsersArgs {
    /// The database, in place of OMA_DATABASE and of the one in the data directory
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) database: Option<String>,
    #[command(subcommand)]
    pub(crate) command: UsersCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UsersCommand {
    /// List users
    List,
    /// Add a user
    Add(AddUserArgs),
    /// Change a user; its sessions end with a new password, and when it is not active any more
    Change(ChangeUserArgs),
    /// Make a token for a user and print it: the only time that it can be read
    Token(TokenArgs),
    /// Revoke a token, or end a session, at once
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
pub(crate) struct AddUserArgs {
    /// The user's address
    #[arg(value_name = "EMAIL")]
    pub(crate) email: Email,
    /// What the user may do: agent, viewer, operator or admin
    #[arg(long, value_name = "ROLE")]
    pub(crate) role: Role,
    /// The user's name
    #[arg(long, default_value = "", value_name = "NAME")]
    pub(crate) name: String,
    #[arg(long, help = PASSWORD)]
    pub(crate) password_stdin: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ChangeUserArgs {
    /// The user's address
    #[arg(value_name = "EMAIL")]
    pub(crate) email: Email,
    /// What the user may do from now on
    #[arg(long, value_name = "ROLE")]
    pub(crate) role: Option<Role>,
    /// Whether the user is let in
    #[arg(long, value_name = "true|false")]
    pub(crate) active: Option<bool>,
    #[arg(long, help = PASSWORD)]
    pub(crate) password_stdin: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    /// The user's address
    #[arg(value_name = "EMAIL")]
    pub(crate) email: Email,
    /// What the token is called
    #[arg(long, default_value = "made at the command line", value_name = "NAME")]
    pub(crate) name: String,
    /// What the token may do at most; what the user may, when it is not said
    #[arg(long, value_name = "ROLE")]
    pub(crate) role: Option<Role>,
    /// How many days it is good
    #[arg(long, default_value_t = 90, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..=366))]
    pub(crate) days: u16,
}

#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    /// The token's id, as `oma users list` and the audit trail tell it
    #[arg(value_name = "TOKEN_ID")]
    pub(crate) id: TokenId,
}

#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// The database, in place of OMA_DATABASE and of the one in the data directory
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) database: Option<String>,
    #[command(subcommand)]
    pub(crate) command: AuditCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Read the whole trail; exit code 8 when an entry was removed, altered or inserted
    Verify(VerifyTrailArgs),
    /// List entries, newest first
    List(ListTrailArgs),
}

#[derive(Debug, Args)]
pub(crate) struct VerifyTrailArgs {
    /// The last entry as an earlier run printed it, kept elsewhere: a trail that does not go through it was rewritten
    #[arg(long, value_name = "ID:HASH", value_parser = head)]
    pub(crate) known: Option<AuditHead>,
}

#[derive(Debug, Args)]
pub(crate) struct ListTrailArgs {
    /// How many at most
    #[arg(long, default_value_t = 50, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: u32,
    /// Only those before this one
    #[arg(long, value_name = "ID")]
    pub(crate) before: Option<u64>,
    /// Only those of somebody, by name
    #[arg(long, value_name = "NAME")]
    pub(crate) actor: Option<String>,
}

fn head(text: &str) -> Result<AuditHead, String> {
    let read = text
        .split_once(':')
        .and_then(|(id, hash)| Some(AuditHead { id: AuditId(id.parse().ok()?), hash: hash.parse().ok()? }));
    read.ok_or_else(|| "it reads ID:HASH, as `oma audit verify` prints it".to_owned())
}
