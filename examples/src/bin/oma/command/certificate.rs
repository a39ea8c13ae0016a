//! `oma certificate`: clients of NBD, certified by the authority of the data directory, also while a daemon serves that. Every change is an
//! entry of the audit trail, recorded before it.

use std::env;
use std::path::Path;
use std::time::SystemTime;

use oma_core::{Error, ErrorKind, Result, Timestamp};
use oma_examples::authority::{Authority, Certified};
use oma_examples::database::{Database, VARIABLE};
use oma_store::SqlStore;
use serde::Serialize;
use serde_json::json;

use super::Context;
use super::users::{entry, recorded};
use crate::args::{CertificateArgs, CertificateCommand, MakeCertificateArgs};
use crate::output;
use crate::table::{Align, Table};

pub(super) async fn run(context: &Context, args: &CertificateArgs) -> Result<()> {
    let authority = Authority::load(&context.data.tls())?;
    if let CertificateCommand::List = args.command {
        return show(context, authority.clients()?);
    }
    let database = Database::choose(&context.data, args.database.as_deref(), env::var(VARIABLE))?;
    // Another one would be made where the daemon uses none in its data directory, and nobody would look at its trail.
    if database.data.is_some() && !context.data.database().exists() {
        return Err(Error::new(ErrorKind::NotFound, "find", context.data.database().display()).because(
            "the audit trail is in the database of the daemon; name that in the environment, OMA_DATABASE, or with --database",
        ));
    }
    let store = SqlStore::open(&database.config).await?;
    let done = match &args.command {
        CertificateCommand::List => Ok(()),
        CertificateCommand::Make(args) => make(context, &store, &authority, args).await,
        CertificateCommand::Revoke(args) => revoke(context, &store, &authority, &args.client).await,
    };
    store.close().await;
    done
}

async fn make(
    context: &Context,
    store: &SqlStore,
    authority: &Authority,
    args: &MakeCertificateArgs,
) -> Result<()> {
    let directory = args.directory.display().to_string();
    let entry = entry("certificate.create", "certificate", &args.name, json!({ "directory": directory }));
    let made = async { certified(authority, &args.name, &args.directory) };
    let made = recorded(store, entry, made).await?;
    if context.json {
        return output::json(&json!({ "name": made.name, "directory": directory, "serial": made.serial }));
    }
    output::line(format_args!(
        "{directory} has what cn:{} shows; its key is for that client alone",
        args.name
    ))
}

fn certified(authority: &Authority, name: &str, directory: &Path) -> Result<Certified> {
    authority.certify_client(name, directory, SystemTime::now())
}

async fn revoke(context: &Context, store: &SqlStore, authority: &Authority, client: &str) -> Result<()> {
    let entry = entry("certificate.revoke", "certificate", &client.escape_debug(), json!({}));
    let revoked = async { authority.revoke(client, SystemTime::now()) };
    let revoked = recorded(store, entry, revoked).await?;
    if !context.json {
        output::note(
            "a daemon that serves NBD by this authority refuses these from now on; connections that are open stay until they end",
        );
    }
    show(context, revoked)
}

/// A certificate as it is printed.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    serial: String,
    created_at: String,
    good_until: String,
    revoked_at: Option<String>,
}

impl From<Certified> for Row {
    fn from(known: Certified) -> Self {
        let shown = |seconds: u64| {
            let millis = i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX);
            Timestamp::from_millis(millis).to_string()
        };
        Self {
            name: known.name,
            serial: known.serial,
            created_at: shown(known.created_at),
            good_until: shown(known.good_until),
            revoked_at: known.revoked_at.map(shown),
        }
    }
}

fn show(context: &Context, certified: Vec<Certified>) -> Result<()> {
    let rows: Vec<Row> = certified.into_iter().map(Row::from).collect();
    if context.json {
        return output::json(&rows);
    }
    let left = |name| (name, Align::Left);
    let mut table =
        Table::new(&[left("name"), left("serial"), left("made"), left("good until"), left("revoked")]);
    for row in rows {
        let revoked = row.revoked_at.unwrap_or_default();
        table.row([row.name, row.serial, row.created_at, row.good_until, revoked]);
    }
    output::line(table)
}
