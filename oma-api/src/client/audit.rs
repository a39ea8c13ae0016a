//! The audit trail of an appliance, as an admin's program reads it.

use oma_core::audit::AuditHead;
use oma_core::{AuditId, Result};
use reqwest::Method;

use super::appliance::Appliance;
use super::http::Asked;
use crate::{AuditRow, AuditVerification, Page};

const TRAIL: &str = "the audit trail";

impl Appliance {
    /// Entries, the newest first: of somebody by name, before one, a thousand at most.
    ///
    /// # Errors
    /// As [`Appliance::begin`].
    pub async fn audit_entries(
        &self,
        actor: Option<&str>,
        before: Option<AuditId>,
        limit: u32,
    ) -> Result<Vec<AuditRow>> {
        let (limit, before) = (limit.to_string(), before.map(|before| before.to_string()));
        let mut query = vec![("limit", limit.as_str())];
        query.extend(actor.map(|actor| ("actor", actor)));
        query.extend(before.as_deref().map(|before| ("after", before)));
        let asked = Asked::<()> { query: &query, ..Asked::default() };
        let found: Page<AuditRow> = self.ask(Method::GET, &["audit"], asked, &TRAIL).await?;
        Ok(found.items)
    }

    /// Has the whole trail read, which may take long. One that does not go through the `known` entry was rewritten.
    ///
    /// # Errors
    /// As [`Appliance::begin`]; a trail that was tampered with is an answer.
    pub async fn verify_audit(&self, known: Option<&AuditHead>) -> Result<AuditVerification> {
        let known = known.map(AuditHead::to_string);
        let query: Vec<_> = known.as_deref().map(|known| ("known", known)).into_iter().collect();
        let asked = Asked::<()> { query: &query, ..Asked::default() };
        self.ask_long(Method::GET, &["audit", "verification"], asked, &TRAIL).await
    }
}
