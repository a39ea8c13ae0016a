//! Programs that write.

use oma_core::conformance::{Requirement, Trial, trial};
use oma_core::traits::ExportServer;
use oma_core::{ByteSize, ExportName};

use crate::fixture::{Fixture, content, outcome, run, text};

const NBDCOPY: &[Requirement] = &[Requirement::Program("nbdcopy")];
const QEMU_IMG: &[Requirement] = &[Requirement::Program("qemu-img")];
const QEMU_IO: &[Requirement] = &[Requirement::Program("qemu-io")];
const FIO: &[Requirement] = &[Requirement::Program("fio")];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("nbdcopy_writes_the_same_bytes", NBDCOPY, nbdcopy_writes_the_same_bytes),
        trial("qemu_img_converts_into_an_export", QEMU_IMG, qemu_img_converts_into_an_export),
        trial("qemu_io_sees_what_it_wrote", QEMU_IO, qemu_io_sees_what_it_wrote),
        trial("qemu_io_cannot_write_a_read_only_export", QEMU_IO, qemu_io_cannot_write_a_read_only_export),
        trial("fio_verifies_random_writes", FIO, fio_verifies_random_writes),
        trial("fio_trims_and_writes", FIO, fio_trims_and_writes),
    ]
}

async fn nbdcopy_writes_the_same_bytes() {
    let expected = content(64 << 20);
    for options in [&["--flush"][..], &["--destination-is-zero"], &["--request-size=33554432"]] {
        let fixture = Fixture::new().await;
        let image = fixture.path("image");
        std::fs::write(&image, &expected).unwrap();
        for uri in [fixture.unix("disk"), fixture.tcp("disk")] {
            run("nbdcopy", &[options, &[text(&image), &uri]].concat()).await;
            assert!(fixture.device.bytes() == expected, "{options:?}");
        }
        if options == ["--flush"] {
            assert!(fixture.device.unflushed().is_empty());
        }
        fixture.close().await;
    }
}

async fn qemu_img_converts_into_an_export() {
    let fixture = Fixture::new().await;
    let (raw, qcow2) = (fixture.fill().await, fixture.path("qcow2"));
    run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", text(&raw), text(&qcow2)]).await;
    let before = fixture.device.bytes();
    let all = oma_core::Extent::new(0, before.len().try_into().unwrap()).unwrap();
    oma_core::traits::BlockDevice::trim(&fixture.device, all).await.unwrap();
    let uri = fixture.unix("disk");
    run("qemu-img", &["convert", "-n", "-f", "qcow2", "-O", "raw", "-m", "8", "-W", text(&qcow2), &uri])
        .await;
    assert!(fixture.device.bytes() == before);
    run("qemu-img", &["compare", "-f", "qcow2", "-F", "raw", text(&qcow2), &uri]).await;
    fixture.close().await;
}

async fn qemu_io_sees_what_it_wrote() {
    let fixture = Fixture::new().await;
    let commands = [
        "write -P 0x11 1M 64k",
        "read -P 0x11 1M 64k",
        "write -z 1M 32k",
        "read -P 0 1M 32k",
        "read -P 0x11 1081344 32k",
        "write -z -u 1M 16k",
        "discard 2M 1M",
        "write -f -P 7 3M 4k",
        "read -P 7 3M 4k",
        "flush",
        "aio_write -P 3 4M 1M",
        "aio_flush",
        "read -P 3 4M 1M",
        "writev -P 9 6M 4k 8k 512",
        "read -P 9 6M 12800",
    ];
    for uri in [fixture.unix("disk"), fixture.tcp("disk")] {
        let mut arguments = vec!["-f", "raw"];
        arguments.extend(commands.iter().flat_map(|command| ["-c", command]));
        arguments.push(&uri);
        let said = run("qemu-io", &arguments).await;
        assert!(!said.contains("verification failed") && !said.contains("failed:"), "{said}");
    }
    let expected: u8 = fixture.device.bytes()[6 << 20];
    assert_eq!(expected, 9);
    fixture.close().await;
}

async fn qemu_io_cannot_write_a_read_only_export() {
    let fixture = Fixture::new().await;
    let uri = fixture.unix("locked");
    let (said, well) = outcome("qemu-io", &["-f", "raw", "-c", "write 0 4k", &uri]).await;
    assert!(!well, "{said}");
    let said = run("qemu-io", &["-r", "-f", "raw", "-c", "read 0 4k", &uri]).await;
    assert!(said.contains("read 4096/4096"), "{said}");
    fixture.close().await;
}

async fn fio_verifies_random_writes() {
    let fixture = Fixture::new().await;
    let uri = format!("--uri={}", fixture.unix("disk"));
    let arguments = [
        "--name=v",
        "--ioengine=nbd",
        &uri,
        "--rw=randwrite",
        "--bsrange=512-128k",
        "--size=32M",
        "--iodepth=16",
        "--verify=crc32c",
        "--verify_backlog=64",
        "--do_verify=1",
        "--verify_fatal=1",
        "--verify_state_save=0",
        "--randrepeat=1",
    ];
    run("fio", &arguments).await;
    let name = ExportName::parse("disk").unwrap();
    let statistics = fixture.server.statistics(&name).await.unwrap().unwrap();
    assert!(
        statistics.bytes_written >= ByteSize::mib(32).bytes() && statistics.errors == 0,
        "{statistics:?}"
    );
    fixture.close().await;
}

async fn fio_trims_and_writes() {
    let fixture = Fixture::new().await;
    let uri = format!("--uri={}", fixture.tcp("disk"));
    run(
        "fio",
        &["--name=t", "--ioengine=nbd", &uri, "--rw=randtrimwrite", "--bs=64k", "--size=32M", "--iodepth=8"],
    )
    .await;
    assert!(fixture.device.calls().trims > 0);
    fixture.close().await;
}
