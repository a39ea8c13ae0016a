//! Tokens are made, listed and removed in the data directory.

use oma_api::server::TokenFile;
use oma_core::{Error, ErrorKind, Result};
use oma_examples::data_dir::DataDir;
use oma_examples::output;

use crate::args::{AddArgs, Cli, RemoveArgs, TokenArgs, TokenCommand};

pub(crate) async fn run(cli: &Cli, args: &TokenArgs) -> Result<()> {
    let data = DataDir::new(&cli.data_dir)?;
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
                .because("there is none of this name; `volumed token list` lists what there is")),
        },
    }
}
