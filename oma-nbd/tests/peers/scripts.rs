//! Scripts of libnbd's Python module: what it can do, and what it must not.

use std::process::Command;

use oma_core::conformance::{Requirement, Trial, trial};
use oma_core::traits::ExportServer;
use oma_core::{ByteSize, ExportName};

use crate::fixture::{Fixture, run};

/// Debian's Python: another one in `PATH` may lack the module.
const PYTHON: &str = "/usr/bin/python3";

pub(crate) fn trials() -> Vec<Trial> {
    let imported = Command::new(PYTHON).args(["-c", "import nbd"]).output();
    let need = [Requirement::Feature("python3-libnbd", imported.is_ok_and(|done| done.status.success()))];
    vec![
        trial("libnbd_sees_what_it_wrote_with_every_command", &need, every_command),
        trial("libnbd_is_refused_what_is_illegal_and_goes_on", &need, illegal),
        trial("libnbd_has_a_hundred_requests_under_way", &need, many_under_way),
        trial("libnbd_negotiates_options_one_by_one", &need, options),
        trial("libnbd_may_leave_at_any_time", &need, leaving),
    ]
}

/// Runs a script with `uri`, and `unix` of any export.
async fn script(fixture: &Fixture, uri: &str, script: &str) {
    let head = "import nbd, sys, errno\nuri, unix = sys.argv[1:]\n";
    run(PYTHON, &["-c", &format!("{head}{script}"), uri, &fixture.unix("")]).await;
}

async fn every_command() {
    let body = r#"
for structured in (True, False):
    h = nbd.NBD()
    h.set_request_structured_replies(structured)
    h.add_meta_context("base:allocation")
    h.connect_uri(uri)
    assert h.get_structured_replies_negotiated() == structured
    assert h.get_size() == 64 << 20 and not h.is_read_only() and h.can_multi_conn()
    h.pwrite(b"\x11" * 65536, 1 << 20)
    assert h.pread(65536, 1 << 20) == b"\x11" * 65536
    h.pwrite(b"\x22" * 4096, 4097, nbd.CMD_FLAG_FUA)
    assert h.pread(4098, 4096) == b"\0" + b"\x22" * 4096 + b"\0"
    h.zero(32768, 1 << 20)
    h.zero(4096, (1 << 20) + 32768, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
    assert h.pread(65536, 1 << 20) == bytes(36864) + b"\x11" * 28672
    h.trim(1 << 20, 2 << 20, nbd.CMD_FLAG_FUA)
    h.flush()
    if h.can_cache():
        h.cache(4096, 0)
    if structured:
        parts = []
        def chunk(part, offset, status, error):
            assert status != nbd.READ_ERROR
            parts.append((offset, len(part)))
        data = h.pread_structured(1 << 20, 0, chunk, nbd.CMD_FLAG_DF if h.can_df() else 0)
        assert data[4097:8193] == b"\x22" * 4096 and len(parts) >= 1
        assert h.can_meta_context("base:allocation")
        found = []
        h.block_status(4 << 20, 0, lambda name, offset, entries, error: found.extend(entries))
        lengths = found[0::2]
        assert all(n > 0 for n in lengths) and sum(lengths[:-1]) < 4 << 20
        one = []
        h.block_status(4 << 20, 0, lambda name, offset, entries, error: one.extend(entries), nbd.CMD_FLAG_REQ_ONE)
        assert len(one) == 2 and one[0] <= 4 << 20
    h.zero(4 << 20, 0)
    h.shutdown()
"#;
    let fixture = Fixture::new().await;
    for uri in [fixture.unix("disk"), fixture.tcp("disk")] {
        script(&fixture, &uri, body).await;
        assert!(fixture.device.bytes().iter().all(|byte| *byte == 0));
    }
    fixture.close().await;
}

async fn illegal() {
    let body = r#"
size = 64 << 20
def refused(number, call, *args):
    try:
        call(*args)
    except nbd.Error as error:
        assert error.errnum in number, (error, number)
    else:
        raise AssertionError("%s%s was not refused" % (call.__name__, args[1:]))
for structured in (True, False):
    for strict in (0,):
        h = nbd.NBD()
        h.set_strict_mode(strict)
        h.set_request_structured_replies(structured)
        h.connect_uri(uri)
        invalid, full = (errno.EINVAL,), (errno.ENOSPC, errno.EINVAL)
        for offset, length in ((size, 1), (size - 1, 2), (1 << 62, 512), (size - 512, 1024)):
            refused(invalid, h.pread, length, offset)
            refused(invalid, h.trim, length, offset)
            refused(full, h.zero, length, offset)
            refused(full, h.pwrite, b"x" * length, offset)
        refused(invalid, h.pread, 512, 0, 1 << 14)
        refused(invalid, h.trim, 512, 0, 1 << 9)
        refused(invalid, h.flush, 1 << 13)
        for call in (h.trim, h.zero):
            call(0, 0)
        assert h.pread(3, 0) == bytes(3)
        h.shutdown()
h = nbd.NBD()
h.set_strict_mode(0)
h.connect_uri(uri.replace("disk", "locked"))
assert h.is_read_only()
before = h.pread(4096, 0)
for call in (lambda: h.pwrite(b"x" * 512, 0), lambda: h.zero(512, 0), lambda: h.trim(512, 0)):
    try:
        call()
    except nbd.Error as error:
        assert error.errnum == errno.EPERM, error
    else:
        raise AssertionError("a read-only export was changed")
assert h.pread(4096, 0) == before
h.shutdown()
"#;
    let fixture = Fixture::new().await;
    for uri in [fixture.unix("disk"), fixture.tcp("disk")] {
        script(&fixture, &uri, body).await;
    }
    assert!(fixture.device.bytes().iter().all(|byte| *byte == 0));
    fixture.close().await;
}

async fn many_under_way() {
    let body = r#"
handles = []
for n in range(4):
    h = nbd.NBD()
    h.connect_uri(uri)
    handles.append(h)
def drain(h, cookies):
    while cookies:
        h.poll(-1)
        cookies = [c for c in cookies if not h.aio_command_completed(c)]
cookies = [[] for h in handles]
for n in range(100):
    h = n % 4
    cookies[h].append(handles[h].aio_pwrite(nbd.Buffer.from_bytearray(bytearray([n]) * 65536), n * 65536))
for h, c in zip(handles, cookies):
    drain(h, c)
handles[0].flush()
buffers, cookies = [nbd.Buffer(65536) for n in range(100)], [[] for h in handles]
for n in range(100):
    # Each part is read over another connection than it was written.
    h = (n + 1) % 4
    cookies[h].append(handles[h].aio_pread(buffers[n], n * 65536))
for h, c in zip(handles, cookies):
    drain(h, c)
for n in range(100):
    assert buffers[n].to_bytearray() == bytearray([n]) * 65536, n
for h in handles:
    h.shutdown()
"#;
    let fixture = Fixture::new().await;
    for uri in [fixture.unix("disk"), fixture.tcp("disk")] {
        script(&fixture, &uri, body).await;
        assert!(fixture.device.unflushed().is_empty());
    }
    fixture.close().await;
}

async fn options() {
    let body = r#"
h = nbd.NBD()
h.set_opt_mode(True)
h.connect_uri(unix)
names = []
h.opt_list(lambda name, description: names.append(name) or 0)
assert sorted(names) == ["disk", "locked"], names
for name in ("none", "x" * 4096, "\u00e9\u20ac", ""):
    h.set_export_name(name)
    try:
        h.opt_info()
    except nbd.Error:
        pass
    else:
        raise AssertionError("%r is there" % name)
h.set_export_name("locked")
h.set_full_info(True)
h.opt_info()
assert h.get_size() == 64 << 20 and h.is_read_only() and h.get_canonical_export_name() == "locked"
contexts = []
h.set_export_name("disk")
h.opt_list_meta_context(lambda name: contexts.append(name) or 0)
assert "base:allocation" in contexts and "qemu:dirty-bitmap:b0" in contexts, contexts
h.add_meta_context("qemu:dirty-bitmap:b0")
h.opt_go()
assert not h.is_read_only() and h.can_meta_context("qemu:dirty-bitmap:b0")
h.pwrite(b"x", 0)
h.shutdown()
h = nbd.NBD()
h.set_opt_mode(True)
h.connect_uri(unix)
h.opt_abort()
"#;
    let fixture = Fixture::new().await;
    script(&fixture, &fixture.unix("disk"), body).await;
    fixture.close().await;
}

async fn leaving() {
    let body = r#"
for round in range(20):
    h = nbd.NBD()
    if round % 4 == 3:
        h.set_opt_mode(True)
    h.connect_uri(uri)
    if round % 4 != 3:
        for n in range(round):
            h.aio_pread(nbd.Buffer(1 << 20), n << 20)
            h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(65536)), n << 20)
    if round % 4 == 1:
        h.aio_disconnect(0)
    if round % 4 == 2:
        h.shutdown(nbd.SHUTDOWN_ABANDON_PENDING)
    del h
"#;
    let fixture = Fixture::new().await;
    script(&fixture, &fixture.tcp("disk"), body).await;
    let name = ExportName::parse("disk").unwrap();
    let left = async {
        while fixture.server.statistics(&name).await.unwrap().unwrap().connections > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), left).await.expect("nobody stays connected");
    assert!(fixture.device.calls().bytes_read < 20 * ByteSize::mib(64).bytes());
    fixture.close().await;
}
