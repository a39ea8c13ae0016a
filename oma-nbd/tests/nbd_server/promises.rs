//! The suite of export servers, as far as another program's server can keep its promises.

use std::sync::Arc;

use oma_core::conformance::{Connect, ExportSubject, Trial, cases_needing, export_server_cases, without};
use oma_core::traits::BlockDevice;
use oma_nbd::{Client, ClientConfig};

use crate::fixture::NBD_SERVER;
use crate::site::Site;

/// What it cannot keep, and why.
const NOT_KEPT: &[(&str, &[&str])] = &[
    (
        "the device is a file that another process reads and writes, not one in memory whose calls are seen",
        &[
            "l16_a_larger_token_cuts_off_the_old_clients",
            "l16_no_write_of_the_old_token_lands_after_the_new_one_is_published",
            "a_device_is_read_through_many_exports",
            "l23_requests_in_flight_finish",
            "l23_a_device_that_does_not_answer_keeps_its_export_listed_and_closed",
            "a_withdrawal_that_was_dropped_can_be_asked_for_again",
            "a_flush_of_one_client_covers_the_writes_of_all",
            "errors_are_counted",
            "l23_a_withdrawn_export_disconnects_its_clients_and_takes_no_new_ones",
        ],
    ),
    (
        "its clients are not told to leave, so one that stays is cut off",
        &["l22_withdrawing_touches_no_other_connection"],
    ),
    ("it counts nothing", &["requests_and_bytes_are_counted", "the_same_token_and_export_change_nothing"]),
];

pub(crate) fn trials() -> Vec<Trial> {
    let cases = without(export_server_cases(), NOT_KEPT);
    cases_needing("nbd_server", &[NBD_SERVER], &cases, subject)
}

async fn subject() -> ExportSubject {
    let site = Arc::new(Site::new().await);
    let server = Arc::new(site.server());
    let door = site.clone();
    let connect: Connect = Arc::new(move |name| {
        let uri = door.peer.uri(name.as_str());
        Box::pin(async move {
            let config = ClientConfig { connections: 1, ..crate::fixture::config() };
            let client: Arc<dyn BlockDevice> = Arc::new(Client::connect(&uri, config).await?);
            Ok(client)
        })
    });
    ExportSubject { server, connect, guard: Box::new(site) }
}
