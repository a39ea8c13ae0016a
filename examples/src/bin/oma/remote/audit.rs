use oma_api::AuditRow;
use oma_core::{AuditId, Result};

use super::Remote;
use crate::args::{AuditArgs, AuditCommand};
use crate::command::audit::{print, tell};
use oma_examples::failure::Failed;

/// The audit trail, read and verified.
pub(super) async fn run(remote: &Remote, args: &AuditArgs) -> Result<(), Failed> {
    match &args.command {
        AuditCommand::Verify(args) => {
            tell(&remote.appliance.verify_audit(args.known.as_ref()).await?, remote.json)
        }
        AuditCommand::List(args) => {
            let before = args.before.map(AuditId);
            let rows = remote.appliance.audit_entries(args.actor.as_deref(), before, args.limit).await?;
            let with_details = |row: AuditRow| {
                let details = row.details.as_ref().map(ToString::to_string);
                (row, details)
            };
            Ok(print(rows.into_iter().map(with_details).collect(), remote.json)?)
        }
    }
}
