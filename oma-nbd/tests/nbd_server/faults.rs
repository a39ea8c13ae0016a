//! What can be wrong at a site.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use oma_core::conformance::{Trial, trial};
use oma_core::traits::{Drained, ExportServer};
use oma_core::{Error, ErrorKind};
use oma_nbd::nbd_server::{KnownPaths, NbdServer, NbdServerConfig, Unsound};

use crate::fixture::NBD_SERVER;
use crate::laws::each;
use crate::site::{Site, name, spec};

pub(crate) fn trials() -> Vec<Trial> {
    each![
        a_folder_that_takes_no_file_leaves_the_configuration_as_it_is,
        a_configuration_that_is_missing_is_told,
        a_configuration_broken_by_hand_is_told_and_left_alone,
        what_nbd_server_does_not_read_is_taken_out_again,
        without_a_process_nothing_is_published_but_all_is_withdrawn,
        a_process_of_somebody_else_is_not_signalled,
        an_nbd_server_of_another_configuration_is_not_signalled,
        a_pid_file_without_a_process_id_is_told,
        owner_and_mode_of_the_configuration_stay,
        backups_tell_their_time_and_are_not_many,
        a_server_that_cannot_read_its_configuration_again_is_not_told_to,
        a_device_that_lies_nowhere_is_unsupported,
        publications_at_once_lose_nothing,
    ]
}

async fn refused(site: &Site) -> Error {
    let before = site.text();
    let error = site.server().publish(spec("a", "d")).await.unwrap_err();
    assert_eq!(site.text().trim_end(), before.trim_end());
    error
}

async fn a_folder_that_takes_no_file_leaves_the_configuration_as_it_is() {
    let site = Site::new().await;
    // Root may write anywhere; but nobody makes a file of a folder.
    std::fs::create_dir(site.peer.path("config.oma-new")).unwrap();
    let error = refused(&site).await;
    assert!(error.chain().contains("config.oma-new"), "{}", error.chain());
    assert!(site.connect("a").await.is_err());
}

async fn a_configuration_that_is_missing_is_told() {
    let site = Site::new().await;
    std::fs::remove_file(site.peer.path("config")).unwrap();
    let error = site.server().publish(spec("a", "d")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(!site.peer.path("config").exists());
}

async fn a_configuration_broken_by_hand_is_told_and_left_alone() {
    let site = Site::new().await;
    site.server().publish(spec("b", "e")).await.unwrap();
    let sound = site.text();
    for broken in [
        sound.replace("[generic]", "[general]"),
        sound.replace("# OMA ends: b\n", ""),
        format!("[b]\n{sound}"),
        String::new(),
    ] {
        std::fs::write(site.peer.path("config"), &broken).unwrap();
        assert_eq!(refused(&site).await.kind(), ErrorKind::Corrupt);
        let withdrawn = site.server().withdraw(&name("b"), Duration::ZERO).await;
        assert_eq!(withdrawn.unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(site.text(), broken);
    }
    site.connect("b").await.unwrap();
}

async fn what_nbd_server_does_not_read_is_taken_out_again() {
    let site = Site::new().await;
    // It reads nothing at all of a configuration with such a section.
    let text = format!("{}\n[half]\nreadonly = maybe\n", site.text());
    std::fs::write(site.peer.path("config"), &text).unwrap();
    let config = NbdServerConfig { settle: Duration::from_millis(300), ..site.config() };
    let error = site.server_with(config).publish(spec("a", "d")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(site.text(), text);
    site.connect("theirs").await.unwrap();
}

async fn without_a_process_nothing_is_published_but_all_is_withdrawn() {
    let mut site = Site::new().await;
    let before = site.text();
    site.server().publish(spec("a", "d")).await.unwrap();
    let pid = std::fs::read(site.pid_file()).unwrap();
    site.peer.kill().await;
    for left in [None, Some(pid)] {
        if let Some(pid) = left {
            std::fs::write(site.pid_file(), pid).unwrap();
        }
        let error = site.server().publish(spec("b", "e")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.chain());
        assert!(!site.text().contains("[b]"));
    }
    assert_eq!(site.server().withdraw(&name("a"), Duration::ZERO).await.unwrap(), Drained::Graceful);
    assert_eq!(site.text(), format!("{before}\n"));
}

async fn a_process_of_somebody_else_is_not_signalled() {
    let site = Site::new().await;
    // Ourselves: the signal would end us.
    std::fs::write(site.pid_file(), format!("{}\n", std::process::id())).unwrap();
    let error = refused(&site).await;
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(error.chain().contains("nobody was signalled"), "{}", error.chain());
}

async fn an_nbd_server_of_another_configuration_is_not_signalled() {
    let (site, other) = (Site::new().await, Site::new().await);
    let own = std::fs::read(site.pid_file()).unwrap();
    std::fs::copy(other.pid_file(), site.pid_file()).unwrap();
    let error = refused(&site).await;
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(error.chain().contains("another configuration"), "{}", error.chain());
    std::fs::write(site.pid_file(), own).unwrap();
    site.server().publish(spec("a", "d")).await.unwrap();
}

async fn a_pid_file_without_a_process_id_is_told() {
    let site = Site::new().await;
    for text in ["", "no number", "0", "-1", "99999999999"] {
        std::fs::write(site.pid_file(), text).unwrap();
        assert_eq!(refused(&site).await.kind(), ErrorKind::Unavailable, "{text:?}");
    }
}

async fn owner_and_mode_of_the_configuration_stay() {
    let site = Site::new().await;
    let path = site.peer.path("config");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    // The file that is named may be a link to it.
    let link = site.peer.path("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let config = NbdServerConfig { file: link.clone(), ..site.config() };
    site.server_with(config).publish(spec("a", "d")).await.unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o640);
    assert!(link.is_symlink());
    for backup in site.beside() {
        assert_eq!(site.peer.path(&backup).metadata().unwrap().permissions().mode() & 0o777, 0o640);
    }
}

async fn backups_tell_their_time_and_are_not_many() {
    let site = Site::new().await;
    let before = site.text();
    let by_hand = site.peer.path("config.backup-mine");
    std::fs::write(&by_hand, "x").unwrap();
    let server = site.server_with(NbdServerConfig { backups: 3, ..site.config() });
    server.publish(spec("a", "d")).await.unwrap();
    let first = site.beside().remove(0);
    assert!(
        first.len() == "config.backup-20250821-075220-123".len() && first.starts_with("config.backup-2"),
        "{first}"
    );
    assert_eq!(std::fs::read_to_string(site.peer.path(&first)).unwrap(), before);
    for _ in 0..3 {
        server.withdraw(&name("a"), Duration::ZERO).await.unwrap();
        server.publish(spec("a", "d")).await.unwrap();
    }
    assert_eq!(site.beside().len(), 4, "three and the one by hand: {:?}", site.beside());
    assert!(by_hand.exists() && !site.peer.path(&first).exists());
}

async fn a_server_that_cannot_read_its_configuration_again_is_not_told_to() {
    let site = Site::new().await;
    let before = site.text();
    let said = std::process::Command::new("nbd-server").arg("-V").output().unwrap();
    let said = String::from_utf8([said.stdout, said.stderr].concat()).unwrap();
    let minor: u32 =
        said.split("version 3.").nth(1).unwrap().split(['.', '\n']).next().unwrap().parse().unwrap();
    let published = site
        .server_with(NbdServerConfig { unsound: Unsound::Refuse, ..site.config() })
        .publish(spec("a", "d"))
        .await;
    if minor >= 25 {
        published.unwrap();
        return;
    }
    assert_eq!(published.unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(site.text(), format!("{before}\n"));
    assert!(site.connect("a").await.is_err());
}

async fn a_device_that_lies_nowhere_is_unsupported() {
    let site = Site::new().await;
    let server = NbdServer::new(site.config(), Arc::new(KnownPaths::default()));
    assert_eq!(server.publish(spec("a", "d")).await.unwrap_err().kind(), ErrorKind::Unsupported);
    let paths = KnownPaths::default();
    paths.tell(spec("a", "d").device.info().identity.clone(), site.peer.path("theirs-not"));
    std::fs::File::create_new(site.peer.path("theirs-not")).unwrap().set_len(1 << 20).unwrap();
    NbdServer::new(site.config(), Arc::new(paths)).publish(spec("a", "d")).await.unwrap();
}

async fn publications_at_once_lose_nothing() {
    let site = Site::new().await;
    let publishing = (0..3).map(|number| {
        let server = site.server();
        async move { server.publish(spec(&format!("e{number}"), &format!("d{number}"))).await }
    });
    try_join_all(publishing).await.unwrap();
    for number in 0..3 {
        site.connect(&format!("e{number}")).await.unwrap();
    }
}
