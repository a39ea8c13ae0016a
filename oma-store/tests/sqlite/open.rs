use std::collections::BTreeSet;

use futures_util::future::join_all;
use oma_core::traits::{Inventory, VolumeRegistry};
use oma_core::{Error, ErrorKind};
use oma_store::{SqlStore, StoreConfig};
use sqlx::{Connection, Executor};

use crate::fixture::{Folder, replicated, source_vm};

async fn refused(folder: &Folder) -> Error {
    folder.open().await.expect_err("the database is refused")
}

/// A database with content, closed.
async fn made() -> Folder {
    let folder = Folder::new();
    let store = folder.open().await.unwrap();
    for vm in 0..10 {
        replicated(&store, &format!("web-{vm}")).await;
    }
    store.close().await;
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_first_starts_at_once_all_succeed() {
    let folder = Folder::new();
    let stores = join_all((0..20).map(|_| folder.open())).await;
    let mut instances = BTreeSet::new();
    for store in stores {
        instances.insert(store.unwrap().instance().await.unwrap().to_string());
    }
    assert_eq!(instances.len(), 1);
}

#[tokio::test]
async fn the_instance_stays_when_the_store_is_opened_again() {
    let folder = Folder::new();
    let first = folder.open().await.unwrap();
    let instance = first.instance().await.unwrap();
    first.close().await;
    assert_eq!(folder.open().await.unwrap().instance().await.unwrap(), instance);
}

#[tokio::test]
async fn l15_a_file_whose_maker_was_killed_holds_no_database_yet_and_the_next_writer_makes_it() {
    let (making, folder) = (Folder::new(), Folder::new());
    let mut maker = making.connect().await;
    maker
        .execute("PRAGMA journal_mode = DELETE; CREATE TABLE before (x); PRAGMA cache_size = 1; BEGIN")
        .await
        .unwrap();
    let fill = "DROP TABLE before; CREATE TABLE t (x); INSERT INTO t \
                WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) SELECT zeroblob(3000) FROM n";
    maker.execute(fill).await.unwrap();
    // As it is when the process dies now.
    let journal = |file: std::path::PathBuf| file.with_extension("db-journal");
    std::fs::copy(making.file(), folder.file()).unwrap();
    std::fs::copy(journal(making.file()), journal(folder.file())).unwrap();
    maker.execute("ROLLBACK").await.unwrap();
    let error = folder.open_read_only().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{}", error.chain());
    let mut next = folder.connect().await;
    next.execute("DROP TABLE before").await.unwrap();
    next.close().await.unwrap();
    folder.open().await.unwrap().instance().await.unwrap();
}

#[tokio::test]
async fn a_database_of_a_newer_program_is_refused() {
    let folder = made().await;
    let mut other = folder.connect().await;
    other.execute("INSERT INTO oma_migrations VALUES (99, 'later', 'x', 0)").await.unwrap();
    other.close().await.unwrap();
    for error in [refused(&folder).await, folder.open_read_only().await.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{}", error.chain());
        assert!(error.chain().contains("schema 99"), "{}", error.chain());
    }
}

#[tokio::test]
async fn a_schema_step_of_another_build_is_refused() {
    let folder = made().await;
    let mut other = folder.connect().await;
    other.execute("UPDATE oma_migrations SET checksum = 'x'").await.unwrap();
    other.close().await.unwrap();
    assert_eq!(refused(&folder).await.kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn a_database_of_another_program_is_refused_and_not_changed() {
    let folder = Folder::new();
    let mut other = folder.connect().await;
    other.execute("CREATE TABLE songs (title TEXT)").await.unwrap();
    other.close().await.unwrap();
    let before = std::fs::read(folder.file()).unwrap();
    let error = refused(&folder).await;
    assert_eq!(error.kind(), ErrorKind::Invalid, "{}", error.chain());
    assert_eq!(std::fs::read(folder.file()).unwrap(), before);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_not_changed() {
    let folder = Folder::new();
    let text = "not a database\n".repeat(1000);
    std::fs::write(folder.file(), &text).unwrap();
    let error = refused(&folder).await;
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{}", error.chain());
    assert_eq!(std::fs::read_to_string(folder.file()).unwrap(), text);
}

#[tokio::test]
async fn a_damaged_database_is_refused_with_what_to_do() {
    let folder = made().await;
    let mut bytes = std::fs::read(folder.file()).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 8192].fill(0xa5);
    std::fs::write(folder.file(), &bytes).unwrap();
    let error = refused(&folder).await;
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{}", error.chain());
    for part in [folder.file().to_str().unwrap(), "restore a backup", "volumes are not touched"] {
        assert!(error.chain().contains(part), "{}", error.chain());
    }
    assert_eq!(std::fs::read(folder.file()).unwrap(), bytes);
}

#[tokio::test]
async fn a_check_finds_damage_wherever_a_page_in_use_was_overwritten() {
    let folder = made().await;
    let bytes = std::fs::read(folder.file()).unwrap();
    let config =
        StoreConfig { url: format!("sqlite://{}", folder.file().display()), ..StoreConfig::default() };
    for page in 1..bytes.len() / 4096 {
        let mut damaged = bytes.clone();
        damaged[page * 4096..(page + 1) * 4096].fill(0xa5);
        std::fs::write(folder.file(), &damaged).unwrap();
        let checked = async {
            let store = SqlStore::open_read_only(&config).await?;
            let found = store.check().await;
            store.close().await;
            found
        };
        let error = checked.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "page {page}: {}", error.chain());
    }
}

#[tokio::test]
async fn a_truncated_database_is_refused_wherever_it_ends() {
    let folder = made().await;
    let bytes = std::fs::read(folder.file()).unwrap();
    for length in [1, 100, 4095, 4096, 20_000, bytes.len() / 2, bytes.len() - 4096, bytes.len() - 1] {
        std::fs::write(folder.file(), &bytes[..length]).unwrap();
        let kind = folder.open().await.map(|_| length).map_err(|error| error.kind());
        assert_eq!(kind, Err(ErrorKind::Corrupt), "{length} of {} bytes", bytes.len());
    }
}

#[tokio::test]
async fn a_missing_folder_is_not_found_and_named() {
    let folder = Folder::new();
    let url = format!("sqlite://{}/deeper/oma.db", folder.file().display());
    let config = StoreConfig { url, ..StoreConfig::default() };
    let error = SqlStore::open(&config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(
        error.chain().contains("deeper/oma.db") && error.chain().contains("create it"),
        "{}",
        error.chain()
    );
}

#[tokio::test]
async fn a_place_that_cannot_be_written_is_permission_denied() {
    let config = StoreConfig { url: "sqlite:///proc/oma.db".to_owned(), ..StoreConfig::default() };
    let error = SqlStore::open(&config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{}", error.chain());
}

#[tokio::test]
async fn a_url_without_a_known_engine_is_refused_without_telling_its_secrets() {
    // Built in, an engine refuses it because no database is named.
    let engine = |built| if built { ErrorKind::Invalid } else { ErrorKind::Unsupported };
    for (url, kind) in [
        ("postgres://user:secret@host", engine(cfg!(feature = "postgres"))),
        ("mysql://user:secret@host/", engine(cfg!(feature = "mysql"))),
        ("mysql:user:secret@host/db", engine(cfg!(feature = "mysql"))),
        ("oracle://user:secret@host/db", ErrorKind::Invalid),
        ("secret", ErrorKind::Invalid),
        ("sqlite:", ErrorKind::Invalid),
        ("sqlite::memory:", ErrorKind::Invalid),
    ] {
        let config = StoreConfig { url: url.to_owned(), ..StoreConfig::default() };
        let error = SqlStore::open(&config).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{url}");
        assert!(!format!("{error:?} {}", error.chain()).contains("secret"), "{}", error.chain());
    }
}

#[tokio::test]
async fn reading_only_makes_nothing() {
    let folder = Folder::new();
    assert_eq!(folder.open_read_only().await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(!folder.file().exists());
    std::fs::write(folder.file(), b"").unwrap();
    assert_eq!(folder.open_read_only().await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(std::fs::read(folder.file()).unwrap(), b"");
}

#[tokio::test]
async fn a_reader_sees_what_a_writer_commits_and_writes_nothing() {
    let folder = Folder::new();
    let writer = folder.open().await.unwrap();
    let reader = folder.open_read_only().await.unwrap();
    let vm = Inventory::record(&writer, &source_vm("web")).await.unwrap();
    assert_eq!(reader.context(&vm.id).await.unwrap(), Some(vm));
    let error = Inventory::record(&reader, &source_vm("web")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{}", error.chain());
}

#[tokio::test]
async fn a_reader_opens_what_a_writer_left_without_a_word() {
    let folder = made().await;
    let reader = folder.open_read_only().await.unwrap();
    assert_eq!(reader.by_path(&source_vm("web-7").path).await.unwrap().unwrap().name, "web-7");
}
