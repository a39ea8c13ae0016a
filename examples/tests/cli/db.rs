//! `oma db`: a data directory moved to servers and back, and what is refused.

use std::fs::{self, File};
use std::process::Stdio;

use oma_core::conformance::{Requirement, Trial, trial};
use oma_store::servers::{Database, Server, ServerEngine};
use serde_json::Value;

use crate::world::{MIB, Ran, World, finish};

pub(crate) fn trials() -> Vec<Trial> {
    let servers: Vec<Requirement> = ServerEngine::ALL.iter().map(|engine| engine.required()).collect();
    vec![
        trial("db_moves_a_data_directory_through_every_engine", &servers, moved),
        trial("db_check_tells_what_contradicts_itself", &servers[..1], checked),
        trial("db_import_refuses_what_is_no_whole_export", &[], import_refused),
        trial("db_export_overwrites_nothing", &[], export_refused),
        trial("db_status_changes_nothing", &[], status),
        trial("l29_db_takes_no_password_as_an_argument", &[], password),
    ]
}

/// A world with a replicated disk.
async fn replicated() -> World {
    let world = World::new();
    world.raw("source.raw", 4 * MIB, 1);
    world.replicate(&["--source", &world.text("source.raw"), "--change-id", "b0"]).await.ok();
    world
}

async fn database(engine: ServerEngine) -> Database {
    Server::shared(engine).await.unwrap().create_database().await.unwrap()
}

/// `oma db` on a server's database.
async fn on(world: &World, database: &Database, args: &[&str]) -> Ran {
    finish(world.oma(args).env("OMA_DATABASE", database.url()).spawn().unwrap()).await
}

async fn moved() {
    let world = replicated().await;
    let status = world.run(&["--json", "db", "status"]).await.ok().json();
    assert_eq!((&status["schema"], &status["needed"]), (&Value::from(12), &Value::from(12)));
    let disks = world.disks().await;
    let file = world.text("moved.jsonl");
    let first = world.run(&["--json", "db", "export", &file]).await.ok().json();
    assert_eq!((&first["instance"], &first["rows"]["vm_disks"]), (&status["instance"], &Value::from(1)));
    let bytes = fs::read(&file).unwrap();
    for engine in ServerEngine::ALL {
        let database = database(*engine).await;
        assert!(on(&world, &database, &["db", "status"]).await.ok().out.contains("none; `oma db migrate`"));
        let taken = on(&world, &database, &["--json", "db", "import", &file]).await.ok().json();
        assert_eq!((&taken["rows"], &taken["fingerprint"]), (&first["rows"], &first["fingerprint"]));
        let found = on(&world, &database, &["db", "check"]).await.ok();
        assert_eq!(found.out, "no contradiction found\n");
        let again = on(&world, &database, &["db", "export", "-"]).await.ok();
        assert!(again.out.as_bytes() == bytes, "{engine} gives another file");
        assert!(again.err.contains(first["fingerprint"].as_str().unwrap()), "{}", again.err);
    }
    let mut back = world.oma(&["db", "import", "-"]);
    back.args(["--data-dir", &world.text("back")]).stdin(File::open(&file).unwrap());
    finish(back.spawn().unwrap()).await.ok();
    let there = world.run(&["--json", "disks", "--data-dir", &world.text("back")]).await.ok().json();
    for column in ["vm_path", "disk_key", "change_id", "epoch", "generation", "volume_id"] {
        assert_eq!(there[0][column], disks[0][column], "{column}");
    }
}

async fn checked() {
    let (world, database) = (replicated().await, database(ServerEngine::MariaDb).await);
    let file = world.text("moved.jsonl");
    world.run(&["db", "export", &file]).await.ok();
    on(&world, &database, &["db", "import", &file]).await.ok();
    database.execute("UPDATE vm_disks SET disk_change_id = 'b1'").await.unwrap();
    let found = on(&world, &database, &["--json", "db", "check"])
        .await
        .refused(8, &["1 contradiction", "docs/database.md"]);
    let rows = found.json();
    assert_eq!(
        (rows.as_array().unwrap().len(), &rows[0]["rule"]),
        (1, &Value::from("change-id-of-other-epoch"))
    );
    let found = on(&world, &database, &["db", "check"]).await;
    assert!(found.out.contains("change-id-of-other-epoch  vm_disks"), "{}", found.out);
    world.run(&["db", "check"]).await.ok();
}

async fn import_refused() {
    let world = replicated().await;
    let file = world.text("moved.jsonl");
    world.run(&["db", "export", &file]).await.ok();
    world.run(&["db", "import", &file]).await.refused(4, &["holds records", "import into a new database"]);
    let into = |data: &str, file: &str| {
        let mut command = world.oma(&["db", "import", file]);
        command.args(["--data-dir", &world.text(data)]);
        async move { finish(command.spawn().unwrap()).await }
    };
    into("new", &world.text("absent")).await.refused(7, &["absent"]);
    assert!(!world.path("new").exists());
    let text = fs::read_to_string(&file).unwrap();
    fs::write(world.path("cut"), &text[..text.len() / 2]).unwrap();
    into("new", &world.text("cut")).await.refused(8, &["line", "cut", "nothing was imported"]);
    fs::write(world.path("changed"), text.replacen("\"b0\"", "\"b7\"", 1)).unwrap();
    into("new", &world.text("changed")).await.refused(8, &["fingerprint", "nothing was imported"]);
    fs::write(world.path("newer"), text.replacen("\"schema\":12", "\"schema\":13", 1)).unwrap();
    into("new", &world.text("newer")).await.refused(2, &["schema 13", "use the program that wrote it"]);
    into("new", &world.text("source.raw")).await.refused(2, &["no export of an OMA database"]);
    into("new", &file).await.ok();
}

async fn export_refused() {
    let world = World::new();
    world.run(&["db", "export", &world.text("none")]).await.refused(7, &["no database of OMA"]);
    assert!(!world.path("none").exists());
    let world = replicated().await;
    let file = world.text("moved.jsonl");
    fs::write(&file, "precious").unwrap();
    world.run(&["db", "export", &file]).await.refused(2, &["moved.jsonl", "another path"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    let full = world
        .oma(&["db", "export", "-"])
        .stdout(Stdio::from(File::options().write(true).open("/dev/full").unwrap()))
        .spawn();
    finish(full.unwrap()).await.refused(6, &["export"]);
}

async fn status() {
    let world = World::new();
    let status = world.run(&["--json", "db", "status"]).await.ok().json();
    assert_eq!((&status["schema"], &status["instance"]), (&Value::Null, &Value::Null));
    assert!(!world.path("data").exists());
    let migrated = world.run(&["db", "migrate"]).await.ok();
    assert!(
        migrated.out.contains("version 12, as needed") && migrated.out.contains("deployment"),
        "{}",
        migrated.out
    );
    world.run(&["db", "check"]).await.ok();
    world.run(&["db", "status", "--database", "sqlite:/nowhere/at/all.db"]).await.ok();
    world.run(&["db", "status", "--database", "odd://x/y"]).await.refused(2, &["no known engine"]);
}

async fn password() {
    let world = World::new();
    for url in ["mysql://oma:hunter2@127.0.0.1:1/oma", "postgres:///oma?host=/nowhere&password=hunter2"] {
        let ran = world
            .run(&["--json", "db", "--database", url, "status"])
            .await
            .refused(2, &["password", "OMA_DATABASE"]);
        assert!(!format!("{ran:?}").contains("hunter2"), "{ran:?}");
        let there = world.oma(&["--json", "db", "status"]).env("OMA_DATABASE", url).spawn().unwrap();
        let ran = finish(there).await;
        assert!(ran.code != 0 && !format!("{ran:?}").contains("hunter2"), "{ran:?}");
    }
}
