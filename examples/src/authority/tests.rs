use std::os::unix::fs::PermissionsExt as _;

use rustls::pki_types::CertificateRevocationListDer;

use super::*;

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

/// An authority that has certified its server, and its folder.
fn made(now: SystemTime) -> (tempfile::TempDir, Authority) {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::load_or_make(&folder.path().join("tls"), now).unwrap();
    assert!(authority.certify(&names(&["localhost", "127.0.0.1"]), now).unwrap());
    (folder, authority)
}

fn certify(authority: &Authority, name: &str, directory: &Path, now: SystemTime) -> Result<Certified> {
    authority.certify_client(&NewClient::named(name)?, directory, now)
}

#[test]
fn l29_it_is_made_once_for_its_owner_only() {
    let now = SystemTime::now();
    let (folder, authority) = made(now);
    let directory = folder.path().join("tls");
    assert_eq!(mode(&directory), 0o700);
    for name in [AUTHORITY, AUTHORITY_KEY, SERVER, SERVER_KEY] {
        assert_eq!(mode(&directory.join(name)), 0o600, "{name}");
    }
    let again = Authority::load_or_make(&directory, now).unwrap();
    assert_eq!(again.fingerprint(), authority.fingerprint());
    assert!(!again.certify(&names(&["localhost", "127.0.0.1"]), now).unwrap());
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 4, "nothing else is left");
    let shown = format!("{authority:?}");
    assert!(!shown.contains("key") && !shown.contains("PRIVATE"), "{shown}");
}

#[test]
fn what_a_killed_process_left_is_no_authority() {
    let folder = tempfile::tempdir().unwrap();
    let (directory, left) = (folder.path().join("tls"), folder.path().join("tls.new"));
    fs::create_dir(&left).unwrap();
    fs::write(left.join(AUTHORITY_KEY), "half a k").unwrap();
    let authority = Authority::load_or_make(&directory, SystemTime::now()).unwrap();
    assert!(!left.exists());
    // Killed between the key of the server and its certificate, or within either.
    let (certificate, key) = authority.server();
    let wanted = names(&["localhost"]);
    authority.certify(&wanted, SystemTime::now()).unwrap();
    let kept = fs::read_to_string(&key).unwrap();
    fs::write(directory.join("server-cert.pem.a1b2c3.new"), "half a c").unwrap();
    fs::remove_file(&certificate).unwrap();
    let authority = Authority::load_or_make(&directory, SystemTime::now()).unwrap();
    assert!(authority.certify(&wanted, SystemTime::now()).unwrap());
    assert!(fs::read_to_string(&key).unwrap() == kept && fs::read_dir(&directory).unwrap().count() == 4);
    fs::remove_file(&key).unwrap();
    assert!(authority.certify(&wanted, SystemTime::now()).unwrap());
    assert!(
        fs::read_to_string(&key).unwrap() != kept && !authority.certify(&wanted, SystemTime::now()).unwrap()
    );
}

#[test]
fn the_server_is_certified_anew_in_time_and_when_its_names_change() {
    let now = SystemTime::now();
    let (_folder, authority) = made(now);
    let wanted = names(&["localhost", "127.0.0.1"]);
    let lasts = |days: u32| now + DAY * days;
    assert!(!authority.certify(&wanted, lasts(CERTIFICATE_LASTS - RENEWED - 2)).unwrap());
    let later = lasts(CERTIFICATE_LASTS - RENEWED);
    assert!(authority.certify(&wanted, later).unwrap());
    assert!(!authority.certify(&wanted, later).unwrap());
    for changed in [&["localhost"][..], &["localhost", "oma.example", "192.0.2.7", "2001:db8::7"]] {
        assert!(authority.certify(&names(changed), later).unwrap(), "{changed:?}");
        assert!(!authority.certify(&names(changed), later).unwrap(), "{changed:?}");
    }
    for wrong in ["", "a b", "*.example", "oma.example:8082", "é"] {
        let error = authority.certify(&names(&[wrong]), now).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{wrong}");
    }
}

#[test]
fn files_of_others_are_refused_with_what_to_do() {
    let now = SystemTime::now();
    let ((folder, _), (other, _)) = (made(now), made(now));
    let (directory, theirs) = (folder.path().join("tls"), other.path().join("tls"));
    fs::set_permissions(directory.join(AUTHORITY_KEY), fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(Authority::load(&directory).unwrap_err().kind(), ErrorKind::PermissionDenied);
    fs::copy(theirs.join(AUTHORITY_KEY), directory.join(AUTHORITY_KEY)).unwrap();
    fs::remove_file(directory.join(SERVER)).unwrap();
    let mixed = Authority::load(&directory).unwrap();
    let error = mixed.certify(&names(&["localhost"]), now).unwrap_err();
    assert!(error.kind() == ErrorKind::Corrupt && error.chain().contains("trust anew"), "{}", error.chain());
    fs::remove_file(directory.join(AUTHORITY_KEY)).unwrap();
    // A directory of somebody who has no key of an authority is not written into.
    let error = Authority::load_or_make(&directory, now).unwrap_err();
    assert!(
        error.kind() == ErrorKind::NotFound
            && ["nbd.listen = \"none\"", "nbd.tls_certificates", "api.tls_certificate"]
                .iter()
                .all(|said| error.chain().contains(said)),
        "{}",
        error.chain()
    );
}

#[test]
fn a_client_gets_all_that_it_needs_once() {
    let now = SystemTime::now();
    let (folder, authority) = made(now);
    let directory = folder.path().join("clients/web01");
    certify(&authority, "web01", &directory, now).unwrap();
    assert_eq!(mode(&directory.join(CLIENT_KEY)), 0o600);
    for name in [AUTHORITY, CLIENT, CLIENT_KEY] {
        assert!(directory.join(name).exists(), "{name}");
    }
    let twice = certify(&authority, "web01", &directory, now).unwrap_err();
    assert!(twice.kind() == ErrorKind::AlreadyExists && twice.chain().contains("take them away"));
    for wrong in ["", "a\nb", &"x".repeat(65)] {
        let refused = certify(&authority, wrong, &folder.path().join("x"), now).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid, "{wrong:?}");
    }
}

#[test]
fn a_certificate_of_another_key_is_made_anew_with_a_new_one() {
    let now = SystemTime::now();
    let ((_folder, authority), (_other, theirs)) = (made(now), made(now));
    let wanted = names(&["localhost", "127.0.0.1"]);
    let (certificate, key) = authority.server();
    fs::copy(theirs.server().1, &key).unwrap();
    let before = [&certificate, &key].map(|path| fs::read_to_string(path).unwrap());
    assert!(authority.certify(&wanted, now).unwrap());
    let after = [&certificate, &key].map(|path| fs::read_to_string(path).unwrap());
    assert!(before[0] != after[0] && before[1] != after[1]);
    assert!(!authority.certify(&wanted, now).unwrap());
}

#[test]
fn renewals_at_once_leave_a_key_and_its_certificate() {
    let now = SystemTime::now();
    let (_folder, authority) = made(now);
    let wanted = [names(&["a.example"]), names(&["b.example"])];
    std::thread::scope(|all| {
        for round in 0..8 {
            let (authority, wanted) = (&authority, &wanted[round % 2]);
            all.spawn(move || {
                for _ in 0..10 {
                    authority.certify(wanted, now).unwrap();
                }
            });
        }
    });
    let pair = KeyPair::from_pem(&fs::read_to_string(authority.server().1).unwrap()).unwrap();
    assert!(is_of(&authority.shows().unwrap(), &pair));
    assert_eq!(fs::read_dir(authority.directory()).unwrap().count(), 4);
}

#[test]
fn an_authority_that_is_not_good_certifies_nobody_and_nothing_for_longer_than_itself() {
    let now = SystemTime::now();
    let (folder, authority) = made(now);
    let wanted = names(&["localhost", "127.0.0.1"]);
    let ends = now + DAY * (AUTHORITY_LASTS - 1);
    for (wrong, said) in [(now - DAY * 400, "set the clock"), (ends + DAY, "a new authority is made")] {
        let client = certify(&authority, "web01", &folder.path().join("client"), wrong);
        for error in [authority.certify(&wanted, wrong).unwrap_err(), client.unwrap_err()] {
            assert!(error.kind() == ErrorKind::Invalid && error.chain().contains(said), "{}", error.chain());
        }
    }
    assert_eq!((authority.ending(now), authority.ending(ends - DAY * (NOTED + 1))), (None, None));
    assert!(authority.ending(ends - DAY * (NOTED - 1)).unwrap().contains("is good until"));
    let until =
        |path: &Path| validity(&CertificateDer::from_pem_slice(&fs::read(path).unwrap()).unwrap()).unwrap().1;
    let late = ends - DAY * 10;
    assert!(authority.certify(&wanted, late).unwrap() && !authority.certify(&wanted, late).unwrap());
    certify(&authority, "web01", &folder.path().join("client"), late).unwrap();
    let last = until(&authority.directory().join(AUTHORITY));
    assert_eq!(until(&authority.server().0), last);
    assert_eq!(until(&folder.path().join("client").join(CLIENT)), last);
}

#[test]
fn a_clients_directory_of_another_authority_or_of_others_is_refused() {
    let now = SystemTime::now();
    let (folder, authority) = made(now);
    let directory = folder.path().join("client");
    fs::create_dir(&directory).unwrap();
    for mode in [0o777, 0o775, 0o1777] {
        fs::set_permissions(&directory, fs::Permissions::from_mode(mode)).unwrap();
        let error = certify(&authority, "web01", &directory, now).unwrap_err();
        assert!(error.kind() == ErrorKind::PermissionDenied && error.chain().contains("go-w"), "{error:?}");
    }
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(directory.join(AUTHORITY), "theirs").unwrap();
    let error = certify(&authority, "web01", &directory, now).unwrap_err();
    assert!(error.kind() == ErrorKind::AlreadyExists && error.chain().contains("take it away"), "{error:?}");
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
    fs::copy(authority.directory().join(AUTHORITY), directory.join(AUTHORITY)).unwrap();
    certify(&authority, "web01", &directory, now).unwrap();
}

/// Shuts a client out.
fn revoke(authority: &Authority, client: &str, now: SystemTime) -> Result<BTreeSet<String>> {
    let revoked = authority.revoke(&authority.of_client(client, now)?, now)?;
    assert!(revoked.iter().all(|one| one.revoked_at.is_some()));
    Ok(revoked.into_iter().map(|one| one.serial).collect())
}

fn known(authority: &Authority) -> Vec<Certified> {
    let (known, unreadable) = authority.clients().unwrap();
    assert_eq!(unreadable, Vec::<PathBuf>::new());
    known
}

#[test]
fn a_client_that_is_shut_out_stays_so_and_others_are_not() {
    let now = SystemTime::now();
    let (folder, authority) = made(now);
    let make = |name: &str, directory: &str, now| {
        certify(&authority, name, &folder.path().join(directory), now).unwrap()
    };
    assert_eq!(known(&authority), []);
    let nobody = revoke(&authority, "web01", now).unwrap_err();
    assert!(
        nobody.kind() == ErrorKind::NotFound && nobody.chain().contains("certificate list"),
        "{nobody:?}"
    );
    let [first, second, other] =
        [make("web01", "a", now), make("web01", "b", now + DAY), make("web02", "c", now)];
    let listed: Vec<_> = known(&authority).into_iter().map(|one| one.serial).collect();
    assert_eq!((listed.len(), &listed[0]), (3, &second.serial));
    // One by its number, both by their name, and again.
    let one = BTreeSet::from([first.serial.clone()]);
    assert_eq!(revoke(&authority, &first.serial.to_lowercase(), now).unwrap(), one);
    let both = BTreeSet::from([first.serial.clone(), second.serial.clone()]);
    for later in [now + DAY, now + DAY * 2] {
        assert_eq!(revoke(&authority, "web01", later).unwrap(), both);
    }
    let revoked_at = |serial: &str| {
        let clients = known(&authority);
        clients.into_iter().find(|one| one.serial == serial).unwrap().revoked_at
    };
    assert_eq!(revoked_at(&first.serial), Some(seconds(now)));
    assert_eq!(revoked_at(&second.serial), Some(seconds(now + DAY)));
    assert_eq!(revoked_at(&other.serial), None);
    // One that is known nowhere is known from then on, and what is out of date stays: a clock may be wrong.
    let unknown = "40".repeat(16);
    revoke(&authority, &unknown, now + DAY * CERTIFICATE_LASTS * 2).unwrap();
    assert!(is_revoked(&authority, &unknown));
    for (one, is_on_it) in [(&first, true), (&second, true), (&other, false)] {
        assert_eq!(is_revoked(&authority, &one.serial), is_on_it, "{one:?}");
    }
    assert_eq!(mode(&authority.directory().join("ca-crl.pem")), 0o600);
    // The same name, certified anew, is let in.
    let again = make("web01", "e", now);
    assert_eq!(revoked_at(&again.serial), None);
}

#[test]
fn l15_what_was_revoked_is_on_the_list_after_a_crash_and_beside_a_damaged_record() {
    let now = SystemTime::now();
    let (folder, authority) = made(now);
    let thief = certify(&authority, "thief", &folder.path().join("a"), now).unwrap();
    let other = certify(&authority, "other", &folder.path().join("b"), now).unwrap();
    revoke(&authority, "thief", now).unwrap();
    let list = authority.directory().join("ca-crl.pem");
    // Killed before the list was written, or the list was lost.
    fs::remove_file(&list).unwrap();
    fs::write(authority.directory().join("ca-crl.pem.a1b2c3.new"), "half a l").unwrap();
    let authority = Authority::load_or_make(authority.directory(), now).unwrap();
    assert!(is_revoked(&authority, &thief.serial) && !is_revoked(&authority, &other.serial));
    assert!(!authority.directory().join("ca-crl.pem.a1b2c3.new").exists());
    // Nobody can tell any more whether it was revoked: it stays shut out.
    let damaged = authority.directory().join("clients").join(format!("{}.json", thief.serial));
    fs::write(&damaged, "{").unwrap();
    assert_eq!(authority.clients().unwrap().1, [damaged]);
    fs::remove_file(&list).unwrap();
    let authority = Authority::load_or_make(authority.directory(), now).unwrap();
    assert!(is_revoked(&authority, &thief.serial) && !is_revoked(&authority, &other.serial));
    revoke(&authority, &other.serial, now).unwrap();
    assert!(is_revoked(&authority, &thief.serial) && is_revoked(&authority, &other.serial));
}

#[test]
fn revocations_at_once_are_all_on_the_list() {
    let now = SystemTime::now();
    let (folder, authority) = made(now);
    std::thread::scope(|all| {
        for number in 0..8 {
            let (authority, folder) = (&authority, &folder);
            all.spawn(move || {
                let name = format!("web{number}");
                certify(authority, &name, &folder.path().join(&name), now).unwrap();
                revoke(authority, &name, now).unwrap();
            });
        }
    });
    for one in known(&authority) {
        assert!(is_revoked(&authority, &one.serial), "{one:?}");
    }
}

/// Whether a certificate is on the list.
fn is_revoked(authority: &Authority, serial: &str) -> bool {
    let list = fs::read(authority.directory().join("ca-crl.pem")).unwrap();
    let list = CertificateRevocationListDer::from_pem_slice(&list).unwrap();
    let serial = u128::from_str_radix(serial, 16).unwrap().to_be_bytes();
    list.windows(serial.len()).any(|bytes| bytes == serial)
}
