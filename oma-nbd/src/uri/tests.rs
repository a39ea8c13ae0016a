use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use super::*;
use proptest::prelude::*;

#[test]
fn addresses_and_names_are_read() {
    let tcp = |host: &str, port, export: &str| Uri::tcp(host, port, export).unwrap();
    let unix = |path: &str, export: &str| Uri::unix(path, export).unwrap();
    for (text, expected) in [
        ("nbd://example.com", tcp("example.com", 10809, "")),
        ("nbd://Example.com:/", tcp("example.com", 10809, "")),
        ("NBD://10.0.0.1:99/disk-2000", tcp("10.0.0.1", 99, "disk-2000")),
        ("nbd://[::1]/a/b", tcp("::1", 10809, "a/b")),
        ("nbd://[0:0::2]:7/%C3%A9%20?", tcp("::2", 7, "é ")),
        ("nbd://h//a", tcp("h", 10809, "/a")),
        ("nbd+unix:///?socket=/run/a.sock", unix("/run/a.sock", "")),
        ("nbd+unix://?socket=rel%2Bative", unix("rel+ative", "")),
        ("nbd+unix:///x%3Fy?socket=/a%20b%26", unix("/a b&", "x?y")),
    ] {
        assert_eq!(Uri::parse(text).unwrap(), expected, "{text}");
    }
}

#[test]
fn tls_is_demanded_by_the_scheme_and_says_whom_to_trust() {
    let tls = |certificates: Option<&str>, hostname: Option<&str>| UriTls {
        certificates: certificates.map(PathBuf::from),
        hostname: hostname.map(str::to_owned),
    };
    for (text, expected, written) in [
        ("nbds://h/a", tls(None, None), "nbds://h/a"),
        ("NBDS://h/a?tls-verify-peer=true", tls(None, None), "nbds://h/a"),
        (
            "nbds+unix:///a?tls-hostname=srv.example&tls-certificates=/etc/a%20b&socket=/s",
            tls(Some("/etc/a b"), Some("srv.example")),
            "nbds+unix:///a?socket=/s&tls-certificates=/etc/a%20b&tls-hostname=srv.example",
        ),
    ] {
        let uri = Uri::parse(text).unwrap();
        assert_eq!(uri.tls(), Some(&expected), "{text}");
        assert_eq!(uri.to_string(), written);
    }
    assert_eq!(Uri::parse("nbd://h/a").unwrap().tls(), None);
    let uri = Uri::tcp("h", 10809, "a").unwrap();
    assert!(uri.clone().with_tls(tls(Some(""), None)).is_err());
    assert!(uri.clone().with_tls(tls(None, Some("-x"))).is_err());
    assert_eq!(uri.with_tls(tls(None, None)).unwrap().to_string(), "nbds://h/a");
}

#[test]
fn refusals_say_what_to_write_instead() {
    for (text, kind, hint) in [
        ("nbds://h/a?tls-psk-file=k", ErrorKind::Unsupported, "tls-certificates=DIRECTORY"),
        ("nbds+unix:///a?socket=/s&tls-username=u", ErrorKind::Unsupported, "tls-certificates=DIRECTORY"),
        ("nbds://h/a?tls-verify-peer=false", ErrorKind::Unsupported, "may be anybody"),
        ("nbds://h/a?tls-verify-peer=", ErrorKind::Unsupported, "may be anybody"),
        ("nbds://h/a?tls-certificates=", ErrorKind::Invalid, "directory"),
        ("nbds://h/a?tls-hostname=a%20b", ErrorKind::Invalid, "tls-hostname=NAME"),
        ("nbds://h/a?tls-hostname=a&tls-hostname=b", ErrorKind::Invalid, "once"),
        ("nbds://h/a?socket=/s", ErrorKind::Invalid, "nbd+unix://"),
        ("nbds+vsock://2/a", ErrorKind::Unsupported, "nbd+unix://"),
        ("nbd://h/a?tls-certificates=/c", ErrorKind::Invalid, "nbds://"),
        ("nbd://h/a?tls-verify-peer=true", ErrorKind::Invalid, "nbds://"),
        ("nbd+vsock://2/a", ErrorKind::Unsupported, "nbd+unix://"),
        ("http://h/a", ErrorKind::Invalid, "not an NBD URI"),
        ("/some/file", ErrorKind::Invalid, "not an NBD URI"),
        ("nbd:///a", ErrorKind::Invalid, "localhost"),
        ("nbd://h:0/", ErrorKind::Invalid, "port"),
        ("nbd://h:65536/", ErrorKind::Invalid, "port"),
        ("nbd://h:+1/", ErrorKind::Invalid, "port"),
        ("nbd://::1/", ErrorKind::Invalid, "port"),
        ("nbd://[::1/", ErrorKind::Invalid, "brackets"),
        ("nbd://[::1]x/", ErrorKind::Invalid, "brackets"),
        ("nbd://-oProxyCommand=x/", ErrorKind::Invalid, "host"),
        ("nbd://h/a?socket=/s", ErrorKind::Invalid, "nbd+unix://"),
        ("nbd://h/a?timeout=5", ErrorKind::Invalid, "\"timeout\" is not known"),
        ("nbd+unix:///a", ErrorKind::Invalid, "socket=PATH"),
        ("nbd+unix:///a?socket=", ErrorKind::Invalid, "empty"),
        ("nbd+unix:///a?socket=/s&socket=/t", ErrorKind::Invalid, "once"),
        ("nbd+unix://host/a?socket=/s", ErrorKind::Invalid, "three slashes"),
        ("nbd://h/%zz", ErrorKind::Invalid, "%25"),
        ("nbd://h/%ff", ErrorKind::Invalid, "UTF-8"),
        ("nbd://h/%00", ErrorKind::Invalid, "zero byte"),
        ("nbd://h/a#b", ErrorKind::Invalid, "%23"),
    ] {
        let error = Uri::parse(text).unwrap_err();
        assert_eq!(error.kind(), kind, "{text}");
        assert!(error.chain().contains(hint), "{text}: {}", error.chain());
    }
    assert!(Uri::unix("/".repeat(108), "").is_err());
    assert!(Uri::tcp("h", 1, &"x".repeat(4097)).is_err());
}

#[test]
fn l29_refused_secrets_are_not_repeated() {
    for text in ["nbd://me:hunter2@h/a", "nbd://me:hunt/hunter2@h/", "nbd://h/a?password=hunter2"] {
        let error = Uri::parse(text).unwrap_err();
        assert!(!error.chain().contains("hunter2"), "{}", error.chain());
        assert!(!format!("{error:?}").contains("hunter2"));
    }
}

proptest! {
    #[test]
    fn what_is_displayed_parses_to_the_same(
        host in prop_oneof!["[a-z0-9][a-z0-9.-]{0,20}", any::<Ipv6Addr>().prop_map(|a| a.to_string())],
        port in 1u16.., export in "[^\0]{0,60}", socket in prop::collection::vec(1u8.., 1..100), tcp: bool,
        secure: bool, certificates in prop::option::of("[^\0]{1,40}"), hostname in prop::option::of("[a-z0-9][a-z0-9.-]{0,20}")
    ) {
        let uri = if tcp {
            Uri::tcp(&host, port, &export).unwrap()
        } else {
            Uri::unix(OsString::from_vec(socket), &export).unwrap()
        };
        let tls = UriTls { certificates: certificates.map(PathBuf::from), hostname };
        let uri = if secure { uri.with_tls(tls).unwrap() } else { uri };
        let text = uri.to_string();
        prop_assert!(text.is_ascii());
        prop_assert_eq!(Uri::parse(&text).unwrap(), uri);
    }

    #[test]
    fn no_text_panics(text in "(nbds?(\\+unix)?://)?.{0,60}") {
        let _ = Uri::parse(&text);
    }
}
