//! What settings are read as, and which are refused.

use super::*;
use clap::Parser as _;

fn read(file: Option<&str>, flags: &[&str]) -> Result<Settings> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("omad.toml");
    let mut line = vec!["omad"];
    if let Some(file) = file {
        fs::write(&path, file).unwrap();
        line.extend(["--config", path.to_str().unwrap()]);
    }
    line.extend(flags);
    Settings::read(&Cli::try_parse_from(line).unwrap())
}

#[test]
fn nothing_needs_to_be_said() {
    let settings = read(None, &[]).unwrap();
    assert_eq!(settings.api.listen, Some("127.0.0.1:8082".parse().unwrap()));
    assert_eq!(settings.volume_api.listen, Listen::here(8090));
    assert_eq!(settings.nbd.nbd_listen, Some(Listen::here(10809)));
    assert_eq!((settings.work.jobs, settings.volumes.grace), (4, Duration::from_secs(604_800)));
    assert_eq!((settings.upkeep(), settings.keep.log_lines), (UpkeepConfig::default(), 10_000));
    assert!(settings.sources.directories.is_empty() && !settings.api.no_auth);
}

#[test]
fn a_file_goes_before_the_defaults_and_flags_before_it() {
    let file = "data_dir = \"/var/lib/oma\"\nlog = \"json\"\n[api]\nlisten = \"127.0.0.1:1\"\n[volume_api]\nlisten = \"127.0.0.1:3\"\n[work]\njobs = 9\nmemory = \"64MiB\"\n\
                [volumes]\nbackend = \"loop\"\ngrace = \"12h\"\n[sources]\ndirectories = [\"/srv\"]\n";
    let flags = ["--listen", "127.0.0.1:2", "--source-dir", "/mnt", "--volume-listen", "none"];
    let settings = read(Some(file), &flags).unwrap();
    assert_eq!((settings.log, settings.work.jobs, settings.work.memory), (Log::Json, 9, ByteSize::mib(64)));
    assert_eq!(settings.api.listen, Some("127.0.0.1:2".parse().unwrap()));
    assert_eq!(settings.volume_api.listen, Listen::Nowhere);
    assert_eq!(read(Some(file), &[]).unwrap().volume_api.listen, Listen::here(3));
    assert_eq!(settings.sources.directories, [PathBuf::from("/mnt")]);
    assert_eq!(settings.volumes.grace, Duration::from_secs(43_200));
    assert_eq!(settings.data_dir, PathBuf::from("/var/lib/oma"));
}

#[test]
fn what_is_said_of_a_port_leaves_it_where_it_is() {
    let file = "[api]\nconnections = 3\n[nbd]\nhost = \"oma.example\"\n";
    let settings = read(Some(file), &["--tls", "--tls-name", "oma.example", "--tls-name", "::2"]).unwrap();
    assert_eq!(settings.api.listen, Some("127.0.0.1:8082".parse().unwrap()));
    assert_eq!(settings.nbd.address(), Some("127.0.0.1:10809".parse().unwrap()));
    assert!(settings.api.tls && settings.api.tls_names == ["oma.example", "::2"]);
    let none = read(None, &["--nbd-listen", "none"]).unwrap();
    assert_eq!(none.nbd.address(), None);
}

#[test]
fn what_is_printed_is_read_as_the_same() {
    let file = "log = \"json\"\n[api]\ntls_certificate = \"/c.pem\"\ntls_key = \"/k.pem\"\ntls_names = [\"oma.example\"]\nconnections = 7\n\
                [volume_api]\nlisten = \"none\"\n[nbd]\nlisten = \"[::1]:1\"\nhost = \"oma.example\"\ntls_certificates = \"/d\"\n\
                [volumes]\nbackend = \"remote\"\nremote = \"/r\"\nremote_token = \"/t\"\ngrace = \"36h\"\n\
                [work]\nper_source = 2\nmemory = \"1025KiB\"\nlimits = \"/l\"\n[keep]\naudit = \"400d\"\nlogs = \"2w\"\n[sources]\ndirectories = [\"/a b\", \"/\\\"c\"]\n";
    for file in [None, Some(file)] {
        let settings = read(file, &["--listen", "127.0.0.1:2"]).unwrap();
        let printed = settings.toml().unwrap();
        let again = read(Some(&printed), &[]).unwrap();
        assert_eq!(format!("{settings:?}"), format!("{again:?}"), "{printed}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    for (file, named) in [
        ("[work]\njob = 3\n", "job"),
        ("[work]\njobs = \"many\"\n", "jobs"),
        ("[work]\njobs = 0\n", "work.jobs"),
        ("[volumes]\ngrace = \"7\"\n", "is no age"),
        ("[sources]\ndirectories = [\"srv\"]\n", "begin with `/`"),
        ("[work]\nper_source = 0\n", "work.per_source"),
        ("[work]\nper_agent = 0\n", "work.per_agent"),
        ("[api]\ntls_certificate = \"/c.pem\"\n", "api.tls_key"),
        ("[volume_api]\nlisten = \"8090\"\n", "nor `none`"),
        ("[nbd]\nlisten = \"none\"\nhost = \"oma.example\"\n", "nbd.listen"),
        ("[api]\ntls_names = [\"a b\"]\n", "neither a name of a host nor an address"),
        ("[api]\ntls = true\nno_auth = true\n", "api.tls"),
        ("[api]\nlisten = \"0.0.0.0:1\"\nno_auth = true\n", "api.no_auth"),
        ("[api]\nno_auth = true\n[volume_api]\nlisten = \"0.0.0.0:1\"\n", "volume_api.listen"),
        ("[volume_api]\nlisten = \"127.0.0.1:8082\"\n", "twice"),
        ("[volumes]\nbackend = \"cloudstack\"\n", "volumes.cloudstack"),
        ("[volumes]\nbackend = \"remote\"\n", "volumes.remote"),
        ("[volumes]\nremote_token = \"/t\"\n", "volumes.remote"),
        ("[keep]\naudit = \"90d\"\n", "keep.audit"),
        ("[keep]\nlogs = \"long\"\n", "is no age"),
        ("[keep]\ncleanups = \"long\"\n", "is no age"),
        ("data_dir = \n", "omad.toml"),
    ] {
        let error = read(Some(file), &[]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.chain().contains(named), "{file:?}: {}", error.chain());
    }
    let missing = Cli::try_parse_from(["omad", "--config", "/nowhere/omad.toml"]).unwrap();
    assert_eq!(Settings::read(&missing).unwrap_err().kind(), ErrorKind::NotFound);
}
