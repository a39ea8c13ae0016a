//! Tokens are made, listed and removed in the data directory.

use crate::data_dir::DataDir;
use crate::output;
use clap::{Args, Subcommand};
use oma_api::server::{Role, TokenFile};
use oma_core::{Error, ErrorKind, Result};

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
    if tokens.principals().await?.is_empty() {
        output::note(format!("nobody has a token yet; make one with `{program} token add NAME --role ROLE`"));
    }
    Ok(tokens)
}

/// Does what was asked.
///
/// # Errors
/// `NotFound` for a name that has no token; what the data directory answers.
pub async fn run(program: &str, data: &DataDir, args: &TokenArgs) -> Result<()> {
    let file = TokenFile::new(data.tokens());
    match &args.command {
        TokenCommand::Add(AddArgs { name, role }) => {
            data.make()?;
            output::line(file.add(name, *role).await?.reveal())
        }
        TokenCommand::List => file
            .principals()
            .await?
            .iter()
            .try_for_each(|known| output::line(format_args!("{} {}", known.name, known.role))),
        TokenCommand::Remove(RemoveArgs { name }) => match file.remove(name).await? {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::NotFound, "remove token", name)
                .because(format!("there is none of this name; `{program} token list` lists what there is"))),
        },
    }
}
