//! Lies in the handshake.

use oma_core::ErrorKind;
use oma_core::traits::BlockDevice;
use oma_nbd::protocol::*;
use oma_nbd::{Uri, client};

use crate::liar::{Liar, ack, config, go, reply};

#[tokio::test]
async fn cve_2017_2630_a_reply_to_an_option_of_4_gib_is_refused_before_room_is_made() {
    for option in [NBD_OPT_STRUCTURED_REPLY, NBD_OPT_SET_META_CONTEXT, NBD_OPT_GO] {
        for code in [NBD_REP_ACK, NBD_REP_INFO, NBD_REP_ERR_UNKNOWN, NBD_REP_ERR_POLICY] {
            let huge = OptionReplyHeader { option, reply: code, length: u32::MAX }.encode().to_vec();
            let liar = Liar::negotiating(move |asked| (asked == option).then(|| huge.clone()));
            let error = liar.connect().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{}", error.chain());
        }
    }
}

#[tokio::test]
async fn cve_2021_20286_a_server_that_leaves_at_any_byte_is_an_error_and_no_more() {
    for bytes in 0..120 {
        let liar = Liar::cut(bytes, Box::new(|_| None), Box::new(|_| Vec::new()));
        let error = liar.connect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "after {bytes} bytes: {}", error.chain());
        if let Ok(exports) = client::list(&liar.uri(), &config()).await {
            assert!(exports.is_empty() && bytes >= Greeting::SIZE + OptionReplyHeader::SIZE, "{bytes}");
        }
        let _ = client::list_contexts(&liar.uri(), "base:", &config()).await;
    }
}

#[tokio::test]
async fn cve_2023_5215_sizes_of_2_to_the_63_and_more_are_refused() {
    for size in [1 << 63, (1 << 63) + 512, u64::MAX - 511, u64::MAX] {
        let liar = Liar::negotiating(move |option| (option == NBD_OPT_GO).then(|| go(size)));
        let error = liar.connect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{size}: {}", error.chain());
    }
    let largest = (1 << 63) - 512;
    let liar = Liar::negotiating(move |option| (option == NBD_OPT_GO).then(|| go(largest)));
    assert_eq!(liar.connect().await.unwrap().info().capacity.bytes(), largest);
}

#[tokio::test]
async fn answers_to_another_option_and_of_another_kind_are_refused() {
    for option in [NBD_OPT_STRUCTURED_REPLY, NBD_OPT_SET_META_CONTEXT, NBD_OPT_GO] {
        for lie in [ack(NBD_OPT_LIST), ack(0), reply(option, 99, &[]), reply(option, NBD_REP_SERVER, &[0; 4])]
        {
            let liar = Liar::negotiating(move |asked| (asked == option).then(|| lie.clone()));
            let error = liar.connect().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{option}: {}", error.chain());
        }
    }
}

#[tokio::test]
async fn a_name_in_a_list_that_lies_about_its_length_is_refused() {
    for lie in [u32::MAX, 5, 4097] {
        let payload = [&lie.to_be_bytes()[..], b"disk"].concat();
        let listed = [reply(NBD_OPT_LIST, NBD_REP_SERVER, &payload), ack(NBD_OPT_LIST)].concat();
        let liar = Liar::negotiating(move |option| (option == NBD_OPT_LIST).then(|| listed.clone()));
        let error = client::list(&liar.uri(), &config()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{lie}: {}", error.chain());
    }
}

#[tokio::test]
async fn a_list_without_end_takes_no_memory_without_end() {
    let text = "x".repeat(MAX_STRING);
    let mut payload = Vec::new();
    ListReply { name: &text, description: &text }.encode(&mut payload);
    let item = reply(NBD_OPT_LIST, NBD_REP_SERVER, &payload);
    // 64 MiB of names: far fewer than could be listed.
    let listed = item.repeat((64 << 20) / item.len());
    let liar = Liar::negotiating(move |option| (option == NBD_OPT_LIST).then(|| listed.clone()));
    let error = client::list(&liar.uri(), &config()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{}", error.chain());
}

#[test]
fn cve_2025_14946_hosts_that_look_like_options_are_no_hosts() {
    for host in ["-oProxyCommand=reboot", "--help", "-"] {
        let uri = Uri::parse(&format!("nbd://{host}/disk"));
        assert_eq!(uri.unwrap_err().kind(), ErrorKind::Invalid, "{host}");
        let ssh = Uri::parse(&format!("nbd+ssh://{host}/disk"));
        assert_eq!(ssh.unwrap_err().kind(), ErrorKind::Unsupported, "{host}");
    }
}

#[tokio::test]
async fn texts_of_a_server_are_shown_without_their_control_characters() {
    let text = b"\x1b[2J\x1b]0;owned\x07 no\nDisk full of \xff bytes";
    let liar =
        Liar::negotiating(|option| (option == NBD_OPT_GO).then(|| reply(option, NBD_REP_ERR_POLICY, text)));
    let shown = liar.connect().await.unwrap_err().chain();
    assert!(shown.contains("owned") && !shown.contains(|c: char| c.is_control()), "{shown:?}");
}
