//! `oma certificate`: clients of NBD, certified by the authority of the data directory, also while a daemon serves that. Every change is an
//! entry of the audit trail: of a certificate that is made before it, of those that are revoked behind it.

use std::env;
use std::path::Path;
use std::time::SystemTime;

use oma_core::traits::AuditLog as _;
use oma_core::{Error, ErrorKind, Result, Timestamp};
use oma_examples::authority::{Authority, Certified, NewClient};
use oma_examples::database::{Database, VARIABLE};
use oma_examples::trail::{self, entry, recorded};
use oma_store::SqlStore;
use serde::Serialize;
use serde_json::json;

use super::Context;
use crate::args::{CertificateArgs, CertificateCommand, MakeCertificateArgs};
use crate::output;
use crate::table::{Align, Table};

pub(super) async fn run(context: &Context, args: &CertificateArgs) -> Result<()> {
    let authority = Authority::load(&context.data.tls())?;
    let database = || Database::choose(&context.data, args.database.as_deref(), env::var(VARIABLE));
    match &args.command {
        CertificateCommand::List => {
            let (clients, unreadable) = authority.clients()?;
            show(context, clients)?;
            unreadable.first().map_or(Ok(()), |path| Err(damaged(path)))
        }
        CertificateCommand::Make(args) => {
            let client = NewClient::named(&args.name)?;
            let store = opened(database()).await?;
            let made = make(context, &store, &authority, (&client, args)).await;
            store.close().await;
            made
        }
        CertificateCommand::Revoke(args) => {
            let found = authority.of_client(&args.client, SystemTime::now())?;
            let revoked = authority.revoke(&found, SystemTime::now())?;
            revoked_all(context, database(), revoked).await
        }
    }
}

/// The database with the audit trail of the daemon, which may be serving it.
async fn opened(database: Result<Database>) -> Result<SqlStore> {
    let database = database?;
    // Another one would be made where the daemon uses none in its data directory, and nobody would look at its trail.
    let reason =
        "it is not there; name the daemon's database in the environment, OMA_DATABASE, or with --database";
    trail::open(&database).await?.ok_or_else(|| trail::refused(&database, reason))
}

async fn make(
    context: &Context,
    store: &SqlStore,
    authority: &Authority,
    (client, args): (&NewClient, &MakeCertificateArgs),
) -> Result<()> {
    let directory = args.directory.display().to_string();
    let new = json!({ "directory": directory, "serial": client.serial() });
    let entry = entry("certificate.create", "certificate", &args.name, new);
    let made = async { authority.certify_client(client, &args.directory, SystemTime::now()) };
    let made = recorded(store, entry, made).await?;
    if context.json {
        return output::json(&json!({ "name": made.name, "directory": directory, "serial": made.serial }));
    }
    output::line(format_args!(
        "{directory} has what cn:{} shows; its key is for that client alone",
        args.name
    ))
}

/// Tells what was revoked; the entry comes behind it: whoever was robbed is not kept waiting for a database.
async fn revoked_all(context: &Context, database: Result<Database>, revoked: Vec<Certified>) -> Result<()> {
    if !context.json {
        output::note(
            "a daemon that serves NBD by this authority refuses these from now on; connections that are open stay until they end",
        );
    }
    let serials: Vec<&str> = revoked.iter().map(|one| one.serial.as_str()).collect();
    let name = revoked.first().map_or("", |one| one.name.as_str());
    let entry = entry("certificate.revoke", "certificate", &name, json!({ "serials": serials }));
    show(context, revoked)?;
    let told = async {
        let store = opened(database).await?;
        let told = store.audit(&entry).await;
        store.close().await;
        told
    };
    told.await
        .map(drop)
        .inspect_err(|_| output::note("they are revoked, and the audit trail has no entry of it:"))
}

fn damaged(path: &Path) -> Error {
    Error::new(ErrorKind::Corrupt, "read", path.display())
        .because("it is damaged, so the certificate with the number that is its name counts as revoked")
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
