//! Programs that look and read.

use oma_core::conformance::{Requirement, Trial, trial};
use oma_core::traits::{BlockDevice, Durability};

use crate::fixture::{Fixture, SIZE, outcome, run, text};

const NBDINFO: &[Requirement] = &[Requirement::Program("nbdinfo")];
const NBDCOPY: &[Requirement] = &[Requirement::Program("nbdcopy")];
const QEMU_IMG: &[Requirement] = &[Requirement::Program("qemu-img")];
const NBD_CLIENT: &[Requirement] = &[Requirement::Program("nbd-client")];
const NBDKIT: &[Requirement] = &[Requirement::Program("nbdkit"), Requirement::Program("nbdcopy")];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("nbdinfo_lists_all_exports_as_json", NBDINFO, nbdinfo_lists_all_exports_as_json),
        trial("nbdinfo_tells_the_size_over_unix_and_tcp", NBDINFO, nbdinfo_tells_the_size),
        trial("nbdinfo_sees_what_an_export_can", NBDINFO, nbdinfo_sees_what_an_export_can),
        trial("nbdinfo_maps_the_allocation", NBDINFO, nbdinfo_maps_the_allocation),
        trial("nbdinfo_maps_a_dirty_bitmap", NBDINFO, nbdinfo_maps_a_dirty_bitmap),
        trial("nbd_client_lists_all_exports", NBD_CLIENT, nbd_client_lists_all_exports),
        trial("nbdcopy_reads_into_a_pipe_and_in_its_other_ways", NBDCOPY, nbdcopy_in_other_ways),
        trial("qemu_img_converts_from_an_export", QEMU_IMG, qemu_img_converts_from_an_export),
        trial("qemu_img_reads_with_many_requests_under_way", QEMU_IMG, qemu_img_bench),
        trial("nbdinfo_is_refused_an_unknown_export", NBDINFO, nbdinfo_is_refused_an_unknown_export),
        trial("nbdcopy_reads_the_same_bytes", NBDCOPY, nbdcopy_reads_the_same_bytes),
        trial("nbdcopy_reads_with_its_largest_requests", NBDCOPY, nbdcopy_reads_with_its_largest_requests),
        trial("qemu_img_compares_equal", QEMU_IMG, qemu_img_compares_equal),
        trial("qemu_img_maps_the_allocation", QEMU_IMG, qemu_img_maps_the_allocation),
        trial("nbdkit_passes_an_export_on", NBDKIT, nbdkit_passes_an_export_on),
    ]
}

async fn nbdinfo_lists_all_exports_as_json() {
    let fixture = Fixture::new().await;
    let list = format!("nbd+unix://?socket={}", text(&fixture.path("socket")));
    let said = run("nbdinfo", &["--list", "--json", &list]).await;
    for part in [
        "\"protocol\": \"newstyle-fixed\"",
        "\"structured\": true",
        "\"export-name\": \"disk\"",
        "\"export-name\": \"locked\"",
        "\"description\": \"the export locked\"",
        "\"base:allocation\"",
        "\"qemu:dirty-bitmap:b0\"",
        "\"can_multi_conn\": true",
        "\"block_size_maximum\": 33554432",
        "\"export-size\": 67108864",
    ] {
        assert!(said.contains(part), "no {part} in {said}");
    }
    fixture.close().await;
}

async fn nbdinfo_tells_the_size() {
    let fixture = Fixture::new().await;
    for uri in [fixture.unix("disk"), fixture.tcp("locked")] {
        assert_eq!(run("nbdinfo", &["--size", &uri]).await.trim(), SIZE.bytes().to_string());
    }
    fixture.close().await;
}

async fn nbdinfo_sees_what_an_export_can() {
    let fixture = Fixture::new().await;
    let (disk, locked) = (fixture.unix("disk"), fixture.unix("locked"));
    for ability in [
        "connect",
        "read",
        "write",
        "zero",
        "fast-zero",
        "flush",
        "fua",
        "trim",
        "cache",
        "df",
        "multi-conn",
        "structured-reply",
    ] {
        assert!(outcome("nbdinfo", &["--can", ability, &disk]).await.1, "disk cannot {ability}");
    }
    assert!(outcome("nbdinfo", &["--is", "read-only", &locked]).await.1);
    assert!(outcome("nbdinfo", &["--can", "cache", &locked]).await.1);
    for ability in ["write", "zero", "trim", "fast-zero"] {
        assert!(!outcome("nbdinfo", &["--can", ability, &locked]).await.1, "locked can {ability}");
    }
    fixture.close().await;
}

/// The lines of a map as (offset, length, type).
fn map(said: &str) -> Vec<(u64, u64, u64)> {
    let number = |text: Option<&str>| text.unwrap().parse().unwrap();
    said.lines()
        .map(|line| {
            let mut fields = line.split_whitespace();
            (number(fields.next()), number(fields.next()), number(fields.next()))
        })
        .collect()
}

async fn nbdinfo_maps_the_allocation() {
    let fixture = Fixture::new().await;
    fixture.device.write_at(1 << 20, crate::fixture::content(8192), Durability::Cached).await.unwrap();
    let said = run("nbdinfo", &["--map", &fixture.unix("disk")]).await;
    let rest = (1 << 20) + 8192;
    assert_eq!(map(&said), [(0, 1 << 20, 3), (1 << 20, 8192, 0), (rest, SIZE.bytes() - rest, 3)]);
    fixture.close().await;
}

async fn nbdinfo_maps_a_dirty_bitmap() {
    let fixture = Fixture::new().await;
    fixture.bitmap.write_at((1 << 20) + 5, crate::fixture::content(10), Durability::Cached).await.unwrap();
    let said = run("nbdinfo", &["--map=qemu:dirty-bitmap:b0", &fixture.unix("disk")]).await;
    let rest = (1 << 20) + (64 << 10);
    assert_eq!(map(&said), [(0, 1 << 20, 0), (1 << 20, 64 << 10, 1), (rest, SIZE.bytes() - rest, 0)]);
    fixture.close().await;
}

async fn nbdinfo_is_refused_an_unknown_export() {
    let fixture = Fixture::new().await;
    let (said, well) = outcome("nbdinfo", &["--size", &fixture.unix("nothing")]).await;
    assert!(!well && said.contains("no export named"), "{said}");
    fixture.close().await;
}

async fn nbdcopy_reads_the_same_bytes() {
    let fixture = Fixture::new().await;
    let image = fixture.fill().await;
    for (uri, extra) in [
        (fixture.unix("disk"), "--sparse=4096"),
        (fixture.tcp("disk"), "--no-extents"),
        (fixture.unix("disk"), "--synchronous"),
    ] {
        let copy = fixture.path("copy");
        run("nbdcopy", &[extra, &uri, text(&copy)]).await;
        assert!(std::fs::read(&copy).unwrap() == std::fs::read(&image).unwrap(), "{uri} {extra}");
        std::fs::remove_file(copy).unwrap();
    }
    fixture.close().await;
}

async fn nbdcopy_reads_with_its_largest_requests() {
    let fixture = Fixture::new().await;
    let image = fixture.fill().await;
    let copy = fixture.path("copy");
    let sizes = ["--no-extents", "--request-size=33554432", "--queue-size=134217728"];
    run("nbdcopy", &[sizes.as_slice(), &[&fixture.unix("disk"), text(&copy)]].concat()).await;
    assert!(std::fs::read(&copy).unwrap() == std::fs::read(&image).unwrap());
    fixture.close().await;
}

async fn nbdcopy_in_other_ways() {
    let fixture = Fixture::new().await;
    let image = fixture.fill().await;
    let expected = std::fs::read(&image).unwrap();
    let (unix, tcp, copy) = (fixture.unix("disk"), fixture.tcp("disk"), fixture.path("copy"));
    let shell = format!("nbdcopy '{unix}' - | cmp - '{}'", image.display());
    run("bash", &["-o", "pipefail", "-c", &shell]).await;
    for (uri, options) in [
        (&unix, &["--allocated"][..]),
        (&tcp, &["--connections=4", "--requests=16", "--threads=2"]),
        (&unix, &["--sparse=65536", "--request-size=65536"]),
        (&tcp, &["--sparse=0", "--synchronous", "--no-extents"]),
    ] {
        run("nbdcopy", &[options, &[uri, text(&copy)]].concat()).await;
        assert!(std::fs::read(&copy).unwrap() == expected, "{options:?}");
        std::fs::remove_file(&copy).unwrap();
    }
    // From one export into another place of the same server, over both sockets.
    run("nbdcopy", &["--flush", &tcp, &unix]).await;
    assert!(fixture.device.bytes() == expected);
    fixture.close().await;
}

async fn nbd_client_lists_all_exports() {
    let fixture = Fixture::new().await;
    let said = run("nbd-client", &["-l", "127.0.0.1", "-p", &fixture.port.to_string()]).await;
    for name in ["disk", "locked"] {
        assert!(said.lines().any(|line| line.trim().starts_with(name)), "no {name} in {said}");
    }
    fixture.close().await;
}

async fn qemu_img_converts_from_an_export() {
    let fixture = Fixture::new().await;
    let image = fixture.fill().await;
    for (uri, options) in
        [(fixture.unix("disk"), &["-m", "8", "-W"][..]), (fixture.tcp("disk"), &["-S", "0"])]
    {
        let copy = fixture.path("copy.qcow2");
        let ends = ["-f", "raw", "-O", "qcow2", &uri, text(&copy)];
        run("qemu-img", &[&["convert"], options, &ends].concat()).await;
        run("qemu-img", &["compare", "-f", "raw", "-F", "qcow2", text(&image), text(&copy)]).await;
    }
    fixture.close().await;
}

async fn qemu_img_bench() {
    let fixture = Fixture::new().await;
    for (uri, options) in [
        (fixture.unix("disk"), &["-c", "2000", "-d", "64", "-s", "4096"][..]),
        (fixture.tcp("disk"), &["-c", "200", "-d", "16", "-s", "1048576"]),
        (fixture.unix("disk"), &["-w", "-c", "1000", "-d", "32", "-s", "4096", "--flush-interval=100"]),
    ] {
        let said = run("qemu-img", &[&["bench", "-f", "raw"], options, &[&uri]].concat()).await;
        assert!(said.contains("Run completed"), "{said}");
    }
    assert!(fixture.device.calls().flushes > 0);
    fixture.close().await;
}

async fn qemu_img_compares_equal() {
    let fixture = Fixture::new().await;
    let image = fixture.fill().await;
    for uri in [fixture.unix("disk"), fixture.tcp("disk")] {
        let said = run("qemu-img", &["compare", "-f", "raw", "-F", "raw", text(&image), &uri]).await;
        assert!(said.contains("Images are identical"), "{said}");
    }
    fixture.close().await;
}

async fn qemu_img_maps_the_allocation() {
    let fixture = Fixture::new().await;
    fixture.fill().await;
    let said = run("qemu-img", &["map", "-f", "raw", "--output=json", &fixture.unix("disk")]).await;
    assert!(said.contains("\"start\": 1048576, \"length\": 3145728"), "{said}");
    fixture.close().await;
}

async fn nbdkit_passes_an_export_on() {
    let fixture = Fixture::new().await;
    let image = fixture.fill().await;
    let copy = fixture.path("copy");
    let uri = format!("uri={}", fixture.unix("disk"));
    let run_nbdcopy = format!("nbdcopy \"$uri\" {}", text(&copy));
    run("nbdkit", &["-U", "-", "nbd", &uri, "--run", &run_nbdcopy]).await;
    assert!(std::fs::read(&copy).unwrap() == std::fs::read(&image).unwrap());
    fixture.close().await;
}
