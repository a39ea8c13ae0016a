//! A source over NBD: what it says of itself, of changes and of what is wrong.

use oma_core::conformance::{Trial, trial};
use oma_core::direct::DirectDisk;
use oma_core::traits::{Access, Changes};
use oma_core::{ByteSize, ChangeId, ErrorKind, Extent};
use oma_nbd::NbdSource;

use crate::fixture::{NBDKIT, Peer, QEMU_IMG, QEMU_IO, QEMU_NBD, config, run, text};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_source_says_what_it_is", &[NBDKIT], a_source_says_what_it_is),
        trial("a_source_is_never_written", &[NBDKIT], a_source_is_never_written),
        trial("a_source_without_a_bitmap_does_not_know_what_changed", &[], no_bitmap_named),
        trial("a_source_with_a_bitmap_knows_what_changed", &[QEMU_NBD, QEMU_IMG, QEMU_IO], changes_by_bitmap),
        trial("a_bitmap_that_is_not_there_is_named_with_what_to_do", &[QEMU_NBD, QEMU_IMG], missing_bitmap),
        trial("a_server_without_bitmaps_says_so", &[NBDKIT], no_bitmaps_at_all),
        trial("a_source_that_cannot_be_reached_is_unavailable", &[], unreachable),
    ]
}

fn source(peer: &Peer, bitmap: Option<&str>, change_id: Option<&str>) -> NbdSource {
    let change_id = change_id.map(|text| ChangeId::parse(text).unwrap());
    NbdSource::new(peer.uri(""), bitmap.map(str::to_owned), change_id, config())
}

async fn a_source_says_what_it_is() {
    let mut peer = Peer::nbdkit(&["memory", "1M"]).await;
    let about = source(&peer, None, None).describe().await.unwrap();
    assert_eq!((about.capacity, &about.location), (ByteSize::mib(1), &peer.uri("").to_string()));
    let id = |bitmap, change_id| {
        let source = source(&peer, bitmap, change_id);
        async move { source.describe().await.unwrap().content }
    };
    assert_eq!(id(None, None).await, about.content, "the same source has the same content id");
    let (bitmap, first, second) =
        (id(Some("b0"), None).await, id(None, Some("1")).await, id(None, Some("2")).await);
    assert!(bitmap != about.content && first != about.content && first != second);
    assert_eq!(
        id(Some("b1"), Some("1")).await,
        first,
        "a change id names the content, however changes are found"
    );
    peer.kill().await;
    peer.start_nbdkit(&["memory", "2M"]).await;
    assert_ne!(source(&peer, None, None).describe().await.unwrap().content, about.content);
}

async fn a_source_is_never_written() {
    let peer = Peer::nbdkit(&["memory", "1M"]).await;
    let device = source(&peer, None, None).open().await.unwrap();
    assert_eq!(device.info().access, Access::ReadOnly);
    let trim = device.trim(Extent::new(0, 512).unwrap()).await;
    assert_eq!(trim.unwrap_err().kind(), ErrorKind::PermissionDenied);
}

async fn no_bitmap_named() {
    let peer = Peer::new();
    let changes = source(&peer, None, None).changed(&ChangeId::mint()).await.unwrap();
    assert!(matches!(changes, Changes::Unknown(reason) if reason.contains("no dirty bitmap")));
}

async fn qcow2(peer: &Peer) -> String {
    let path = peer.path("image");
    run("qemu-img", &["create", "-f", "qcow2", text(&path), "64M"]).await;
    run("qemu-img", &["bitmap", "--add", text(&path), "b0"]).await;
    text(&path).to_owned()
}

async fn changes_by_bitmap() {
    let mut peer = Peer::new();
    let image = qcow2(&peer).await;
    let writes = ["-c", "write -P 2 0 64k", "-c", "write -P 3 64k 64k", "-c", "write -P 3 32M 64k"];
    run("qemu-io", &[&["-f", "qcow2"], &writes[..], &[&image]].concat()).await;
    peer.start_qemu_nbd(&["--format=qcow2", "--read-only", "-B", "b0", &image]).await;
    let source = source(&peer, Some("b0"), None);
    let since = ChangeId::parse("b0").unwrap();
    let Changes::Since(dirty) = source.changed(&since).await.unwrap() else { panic!("the bitmap knows") };
    let expected = [Extent::new(0, 128 << 10).unwrap(), Extent::new(32 << 20, 64 << 10).unwrap()];
    assert_eq!(dirty.iter().collect::<Vec<_>>(), expected);
    // What another epoch lacks, it does not.
    let changes = source.changed(&ChangeId::mint()).await.unwrap();
    assert!(matches!(changes, Changes::Unknown(reason) if reason.contains("since b0")));
}

async fn missing_bitmap() {
    let mut peer = Peer::new();
    let image = qcow2(&peer).await;
    peer.start_qemu_nbd(&["--format=qcow2", "-B", "b0", &image]).await;
    let error = source(&peer, Some("b9"), None).changed(&ChangeId::mint()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let chain = error.chain();
    assert!(chain.contains("no such bitmap: it offers [\"b0\"]; name one of these"), "{chain}");
    peer.start_qemu_nbd(&["--format=qcow2", &image]).await;
    let chain = source(&peer, Some("b9"), None).changed(&ChangeId::mint()).await.unwrap_err().chain();
    for hint in ["offers no bitmap", "`qemu-img bitmap --add IMAGE b9`", "`qemu-nbd -B b9`"] {
        assert!(chain.contains(hint), "{chain}");
    }
}

async fn no_bitmaps_at_all() {
    for arguments in [&["memory", "1M"][..], &["--no-sr", "memory", "1M"]] {
        let peer = Peer::nbdkit(arguments).await;
        let error = source(&peer, Some("b0"), None).changed(&ChangeId::mint()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.chain().contains("offers no bitmap"), "{}", error.chain());
    }
}

async fn unreachable() {
    let peer = Peer::new();
    let error = source(&peer, Some("b0"), None).describe().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.chain().contains("start it, or mend the address"), "{}", error.chain());
}
