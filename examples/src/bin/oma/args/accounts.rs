use clap::{Args, Subcommand};
use oma_core::TokenId;
use oma_core::audit::AuditHead;
use oma_core::record::Email;
use oma_core::state::Role;

const PASSWORD: &str =
    "Read a password, one line, from standard input; arguments are seen by every user of a machine";

const DATABASE: &str = "Work on this database itself, in place of the one that OMA_DATABASE names and of the one in the data directory; \
    no appliance is asked then";

const USERS_HELP: &str = "\
Where an appliance serves the data directory, and with --api, it is asked, by an admin. With
--embedded or a database that is named (--database, or OMA_DATABASE without --api) they work on
the database itself: for the first admin of all, and for an admin who is locked out; --api is
refused beside either, and OMA_API passed over. Examples:
    oma users add ada@example.com --role admin --password-stdin < password
    oma users token ada@example.com --days 30 > token
    oma users tokens ada@example.com
    oma users revoke tok-0193a2b4-…

Roles, passwords, tokens and the audit trail: docs/accounts.md";

const AUDIT_HELP: &str = "\
Where an appliance serves the data directory, and with --api, it is asked, by an admin. With
--embedded or a database that is named (--database, or OMA_DATABASE without --api) the database
itself is read; --api is refused beside either, and OMA_API passed over. Who can write to the
database at will can write a whole new trail, so keep the last entry elsewhere and give it as
--known the next time. See docs/accounts.md";

#[derive(Debug, Args)]
#[command(after_help = USERS_HELP)]
pub(crate) struct UsersArgs {
    #[arg(long, global = true, value_name = "URL", help = DATABASE)]
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
    /// List tokens and sessions, without their secrets; also those that ended of late
    Tokens(TokensArgs),
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
pub(crate) struct TokensArgs {
    /// Only those of this user
    #[arg(value_name = "EMAIL")]
    pub(crate) email: Option<Email>,
}

#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    /// The token's id, as `oma users tokens` and the audit trail tell it
    #[arg(value_name = "TOKEN_ID")]
    pub(crate) id: TokenId,
}

#[derive(Debug, Args)]
#[command(after_help = AUDIT_HELP)]
pub(crate) struct AuditArgs {
    #[arg(long, global = true, value_name = "URL", help = DATABASE)]
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
    #[arg(long, value_name = "ID:HASH")]
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
