//! `oma` as a client of the appliance that serves its data directory, or that it is told of.

mod cleanup;
mod doubt;
mod lost;
mod points;
mod users;
mod volumes;

use std::fs;
use std::process::{Output, Stdio};

use oma_core::conformance::{Trial, trial};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::world::{Daemon, MIB, World};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("the_command_line_asks_the_appliance_of_its_data_directory", &[], asks),
        trial("the_command_line_follows_an_appliance_that_is_killed_and_begun_anew", &[], follows),
        trial("l30_the_command_line_is_let_in_elsewhere_with_a_token_only", &[], elsewhere),
        trial("without_an_appliance_the_command_line_works_alone", &[], alone),
        trial("l26_the_command_line_has_the_appliance_clean_up_as_it_would_itself", &[], cleanup::asks),
        trial("l26_a_cleanup_is_followed_through_the_death_of_its_appliance", &[], cleanup::follows),
        trial("l26_a_cleanup_of_an_appliance_that_is_gone_is_planned_anew", &[], cleanup::elsewhere),
        trial("volumes_go_back_to_a_recovery_point_by_the_appliance", &[], points::goes_back),
        trial("l15_a_revert_of_an_appliance_that_is_killed_ends_with_the_next_one", &[], points::survives),
        trial("reports_and_forecasts_are_told_by_the_appliance_as_without_it", &[], points::tells),
        trial("l30_a_cleanup_is_planned_by_operators_and_executed_by_admins", &[], cleanup::roles),
        trial("volumes_are_told_and_changed_by_the_appliance_as_by_the_command_line", &[], volumes::asks),
        trial("what_cannot_be_done_with_a_volume_of_an_appliance_is_refused", &[], volumes::refuses),
        trial("an_appliance_compares_and_repairs_records_and_volumes", &[], volumes::repairs),
        trial("a_change_of_a_volume_is_followed_through_the_death_of_its_appliance", &[], lost::followed),
        trial("l30_a_volume_is_looked_at_by_viewers_and_changed_by_operators", &[], volumes::roles),
        trial("l29_an_appliance_makes_users_and_tokens_and_shows_no_secret", &[], users::asks),
        trial("what_cannot_be_of_users_of_an_appliance_is_refused", &[], users::refuses),
        trial("l30_users_and_the_trail_of_an_appliance_are_for_admins", &[], users::roles),
        trial("a_database_that_is_named_is_worked_on_itself", &[], users::on_the_database),
        trial("what_is_asked_again_after_its_answer_was_lost_is_done_once", &[], lost::asked_again),
        trial("whoever_is_shut_out_before_an_answer_is_told_what_to_do", &[], doubt::shut_out),
        trial("whoever_stops_waiting_for_an_operation_is_told_its_key", &[], doubt::stopped),
        trial("what_is_typed_goes_before_the_environment", &[], typed),
    ]
}

impl World {
    fn oma(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oma"));
        command.args(args).current_dir(self.path("images"));
        for name in ["OMA_API", "OMA_TOKEN_FILE", "OMA_CA", "OMA_DATA_DIR", "OMA_DATABASE", "OMA_LOG"] {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    async fn told(&self, args: &[&str]) -> Output {
        self.oma(args).args(["--data-dir", &self.text("data")]).output().await.unwrap()
    }

    async fn told_well(&self, args: &[&str]) -> Value {
        let done = self.told(&[args, &["--json"]].concat()).await;
        assert!(done.status.success(), "{args:?}: {done:?}");
        serde_json::from_slice(&done.stdout).unwrap()
    }

    async fn serves(&self) -> Daemon {
        self.start(&["--source-dir", &self.text("images")]).await
    }
}

fn refused(done: &Output, code: i32, words: &str) {
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.code() == Some(code) && said.contains(words), "{done:?}");
}

const REPLICATE: [&str; 5] = ["replicate", "--vm-path", "/DC/vm/web01", "--source", "web01.raw"];

fn sample(seed: u8) -> Vec<u8> {
    (0..4 * MIB).map(|at| seed ^ u8::try_from(at >> 12 & 0xff).unwrap()).collect()
}

async fn asks() {
    let world = World::of_appliance();
    fs::write(world.path("images/web01.raw"), sample(1)).unwrap();
    let daemon = world.serves().await;
    assert_eq!(world.told_well(&["jobs"]).await, json!([]));
    let job = world.told_well(&REPLICATE).await;
    assert_eq!((&job["status"], &job["epoch"]), (&json!("completed"), &json!(1)), "{job}");
    assert!(job["worker"].is_null() && job["context_id"].is_string(), "the appliance told: {job}");
    let id = job["job_id"].as_str().unwrap();
    let disks = daemon.get(&format!("/replications/{id}/disks")).await;
    assert!(fs::read(disks[0]["volume_path"].as_str().unwrap()).unwrap() == sample(1), "{disks}");
    let jobs = world.told_well(&["jobs"]).await;
    assert_eq!((&jobs[0]["job_id"], &jobs[0]["status"]), (&job["job_id"], &json!("completed")));
    let steps = world.told_well(&["logs", id, "--steps"]).await;
    assert!(steps.as_array().unwrap().iter().any(|step| step["name"] == json!("copy")), "{steps}");
    let shown = world.told(&["logs", id, "--follow"]).await;
    assert!(
        shown.status.success() && String::from_utf8_lossy(&shown.stdout).contains("epoch 1 is committed"),
        "{shown:?}"
    );
    let again = world.told_well(&["retry", id]).await;
    assert_ne!(again["job_id"], job["job_id"], "one that has ended is asked for once more");
    for (args, epochs) in [
        (&["--status", "completed", "--order", "oldest", "--limit", "1"][..], json!([1])),
        (&["--vm-path", "/DC/vm/web01", "--order", "oldest"], json!([1, 2])),
        (&["--limit", "1"], json!([2])),
        (&["--live", "--status", "failed"], json!([])),
        (&["--vm-path", "/DC/vm/other"], json!([])),
    ] {
        let listed = world.told_well(&[&["jobs"], args].concat()).await;
        let listed: Vec<_> = listed.as_array().unwrap().iter().map(|job| job["epoch"].clone()).collect();
        assert_eq!(json!(listed), epochs, "{args:?}");
    }
    refused(&world.told(&["pause", id]).await, 4, id);
    refused(&world.told(&["cancel", "job-none"]).await, 7, "job-none");
    refused(&world.told(&[&REPLICATE[..], &["--reflink", "never"]].concat()).await, 2, "--reflink");
    refused(&world.told(&[&REPLICATE[..], &["--embedded"]].concat()).await, 4, "works in it");
    let wrong = world.told(&["replicate", "--vm-path", "/DC/vm/x", "--source", "none.raw"]).await;
    assert_eq!(wrong.status.code(), Some(7), "{wrong:?}");
    daemon.stop().await;
}

async fn follows() {
    let world = World::of_appliance();
    fs::write(world.path("images/web01.raw"), sample(2)).unwrap();
    fs::write(world.path("limits.json"), json!({ "link": { "bandwidth": MIB } }).to_string()).unwrap();
    fs::write(world.path("omad.toml"), format!("[work]\nlimits = {:?}\n", world.path("limits.json")))
        .unwrap();
    let slow = ["--config", &world.text("omad.toml"), "--source-dir", &world.text("images")];
    let daemon = world.start(&slow).await;
    let data = world.text("data");
    let line = [&REPLICATE[..], &["--json", "--data-dir", &data]].concat();
    let followed = world.oma(&line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while !daemon.all("/replications").await.iter().any(|job| job["status"] == json!("replicating")) {
        tokio::task::yield_now().await;
    }
    daemon.kill().await;
    let daemon = world.serves().await;
    let ended = followed.wait_with_output().await.unwrap();
    assert!(ended.status.success(), "{ended:?}");
    let job: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(job["status"], json!("completed"), "{job}");
    assert_eq!(daemon.all("/replications").await.len(), 1, "nothing was asked for twice");
    daemon.stop().await;
}

async fn elsewhere() {
    let world = World::of_appliance();
    fs::write(world.path("images/web01.raw"), sample(3)).unwrap();
    let viewer = world.token("eve", "viewer").await;
    let daemon = world.serves().await;
    let api = daemon.addresses[1].clone();
    fs::write(world.path("token"), viewer).unwrap();
    let asked = async |args: &[&str]| {
        world.oma(args).args(["--api", &api, "--data-dir", "/nowhere"]).output().await.unwrap()
    };
    refused(&asked(&["jobs"]).await, 1, "token");
    let file = world.text("token");
    refused(&asked(&["jobs", "--token-file", &file]).await, 1, "chmod 600");
    let mut private = fs::metadata(&file).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut private, 0o600);
    fs::set_permissions(&file, private).unwrap();
    let listed = asked(&["jobs", "--json", "--token-file", &file]).await;
    assert!(listed.status.success(), "{listed:?}");
    let image = world.text("images/web01.raw");
    let line = ["replicate", "--vm-path", "/DC/vm/web01", "--source", &image, "--token-file", &file];
    refused(&asked(&line).await, 1, "operator");
    refused(&asked(&["key"]).await, 2, "without --api");
    assert!(daemon.all("/replications").await.is_empty());
    daemon.stop().await;
}

/// `OMA_API` names nobody.
async fn typed() {
    let world = World::of_appliance();
    let url = format!("sqlite://{}/another.db", world.text("images"));
    let add = ["users", "add", "ada@example.com", "--role", "admin", "--database", &url];
    assert!(world.told(&add).await.status.success());
    let daemon = world.serves().await;
    let (socket, data) = (daemon.addresses[0].clone(), world.text("data"));
    let run = async |args: &[&str]| {
        let mut command = world.oma(args);
        command.env("OMA_API", format!("unix:{}", world.text("nobody.sock"))).env("OMA_DATA_DIR", &data);
        command.output().await.unwrap()
    };
    for asks in [&["jobs"][..], &["volumes", "list"], &["users", "list"], &["key"]] {
        let done = run(asks).await;
        assert!(!done.status.success(), "{asks:?}: {done:?}");
    }
    refused(&run(&["jobs"]).await, 5, "cannot be reached");
    for (args, told) in [
        (&["jobs", "--data-dir", &data][..], "status"),
        (&["users", "list", "--data-dir", &data], "admin@localhost"),
        (&["jobs", "--embedded"], "status"),
        (&["audit", "list", "--embedded"], "user.create"),
        (&["users", "list", "--database", &url], "ada@example.com"),
        (&["audit", "list", "--database", &url], "user.create"),
        (&["db", "status", "--database", &url], ""),
        (&["completions", "bash"], "complete"),
        (&["db", "status"], ""),
        (&["jobs", "--api", &socket], "status"),
        (&["users", "list", "--api", &socket, "--data-dir", "/nowhere"], "admin@localhost"),
    ] {
        let done = run(args).await;
        let shown = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success() && shown.contains(told), "{args:?}: {done:?}");
    }
    for both in [
        &["jobs", "--embedded"][..],
        &["volumes", "detach", "vol-1", "--embedded"],
        &["users", "list", "--database", &url],
        &["audit", "verify", "--database", &url],
    ] {
        let both = [both, &["--api", &socket]].concat();
        refused(&run(&both).await, 2, "give one of them");
    }
    daemon.stop().await;
}

async fn alone() {
    let world = World::of_appliance();
    fs::write(world.path("images/web01.raw"), sample(4)).unwrap();
    let report = world.told_well(&REPLICATE).await;
    assert_eq!(report["status"], json!("completed"), "{report}");
    refused(&world.told(&["pause", report["job_id"].as_str().unwrap()]).await, 5, "omad");
    // A socket that nobody listens on is none of an appliance.
    drop(std::os::unix::net::UnixListener::bind(world.path("data/omad.sock")).unwrap());
    assert_eq!(world.told_well(&["jobs"]).await.as_array().unwrap().len(), 1);
}
