//! One file a command.

pub(crate) mod audit;
mod cancel;
mod certificate;
pub(crate) mod change_id;
mod check_report;
mod cleanup;
mod completions;
mod copy;
mod db;
mod demo;
pub(crate) mod disks;
pub(crate) mod forecast;
mod jobs;
mod key;
mod logs;
pub(crate) mod points;
mod replicate;
pub(crate) mod report;
mod serve;
mod trust;
pub(crate) mod users;
mod verify;
pub(crate) mod volumes;

use oma_core::Result;

pub(crate) use self::cleanup::{another_job, no_plan, tell as tell_cleanup};
pub(crate) use self::jobs::print as print_jobs;
pub(crate) use self::logs::{JobTold, print as print_log};

use crate::args::{Cli, Command};
use crate::remote::{self, Remote};
use oma_examples::data_dir::DataDir;
use oma_examples::failure::Failed;

/// What every command is told.
#[derive(Debug)]
pub(crate) struct Context {
    data: DataDir,
    json: bool,
}

pub(crate) async fn run(cli: Cli) -> Result<(), Failed> {
    let context = Context { data: DataDir::new(&cli.data_dir)?, json: cli.json };
    let is_local = remote::is_local(&cli.command);
    if !is_local && (cli.remote.api.is_some() || remote::is_for_appliance(&cli.command)) {
        let appliance = Remote::choose(&cli.remote, &context.data, context.json).await?;
        if let Some(appliance) = appliance {
            return appliance.run(&cli.command).await;
        }
    }
    match cli.command {
        Command::Demo(args) => demo::run(&context, &args).await,
        Command::Replicate(args) => replicate::run(&context, &args).await,
        Command::Copy(args) => copy::run(&context, &args).await,
        Command::Verify(args) => verify::run(&context, &args).await,
        Command::Report(args) => Ok(report::run(&context, &args).await?),
        Command::Key => Ok(key::run(&context)?),
        Command::Jobs(args) => Ok(jobs::run(&context, &args).await?),
        Command::Logs(args) => Ok(logs::run(&context, &args).await?),
        Command::Disks => Ok(disks::run(&context).await?),
        Command::ChangeId(args) => Ok(change_id::run(&context, &args).await?),
        Command::Forecast(args) => Ok(forecast::run(&context, &args).await?),
        Command::Points(args) => Ok(points::run(&context, &args).await?),
        Command::Volumes(args) => volumes::run(&context, &args).await,
        Command::Cancel(args) => Ok(cancel::run(&context, &args).await?),
        Command::Pause(args) => Err(remote::needed("pause", &args.job).into()),
        Command::Resume(args) => Err(remote::needed("resume", &args.job).into()),
        Command::Retry(args) => Err(remote::needed("retry", &args.job).into()),
        Command::Cleanup(args) => Ok(cleanup::run(&context, &args).await?),
        Command::Serve(args) => Ok(serve::run(&context, &args).await?),
        Command::Db(args) => db::run(&context, &args).await,
        Command::Users(args) => Ok(users::run(&context, &args).await?),
        Command::Audit(args) => audit::run(&context, &args).await,
        Command::Trust(args) => Ok(trust::run(&context, &cli.remote, &args).await?),
        Command::Certificate(args) => Ok(certificate::run(&context, &args).await?),
        Command::Completions(args) => Ok(completions::run(&args)?),
    }
}
