//! Asynchronous jobs, whoever starts them and whatever becomes of them.

use std::sync::Arc;
use std::time::Duration;

use oma_core::conformance::{self, Trial};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::caller::Caller;
use super::fake::{Fake, Options, Pace, VolumeState, What};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        conformance::trial("jobs::a_job_shows_its_state_and_then_its_result", &[], shown),
        conformance::trial("jobs::those_of_one_machine_stand_in_a_queue", &[], queue),
        conformance::trial("jobs::time_ends_them_where_they_take_time", &[], time),
        conformance::trial("jobs::whoever_only_looks_at_the_volume_sees_them_end_too", &[], looked_at),
        conformance::trial("jobs::the_quicker_of_two_attaches_wins", &[], race),
        conformance::trial("jobs::a_job_id_of_the_callers_is_taken_once", &[], custom_ids),
        conformance::trial("jobs::a_create_has_its_row_before_its_job_id_is_refused", &[], leak),
        conformance::trial("jobs::a_record_expires", &[], expired),
        conformance::trial("jobs::a_record_is_kept_for_a_day_and_a_job_lives_for_an_hour", &[], aged),
        conformance::trial("jobs::hundreds_of_volumes_at_a_time_are_served", &[], many),
        conformance::trial("jobs::a_restart_fails_them_without_a_result", &[], restarted),
        conformance::trial("jobs::they_are_their_accounts", &[], accounts),
        conformance::trial("jobs::one_that_is_slow_takes_its_polls", &[], slow),
    ]
}

async fn subject(pace: Pace) -> (Fake, Caller) {
    let fake = Fake::start(Options { pace, ..Options::default() }).await;
    let user = Caller::user(&fake);
    (fake, user)
}

/// A volume that is there at once.
fn volume(fake: &Fake, name: &str) -> Uuid {
    let (zone, offering) = (fake.zone.to_string(), fake.offering.to_string());
    let params = [("zoneid", zone.as_str()), ("diskofferingid", &offering), ("name", name), ("size", "1")];
    let made = fake.operate("createVolume", &params).unwrap();
    super::caller::id(&made["volume"]["id"])
}

async fn start(user: &Caller, fake: &Fake, volume: Uuid, command: &str) -> String {
    let (id, machine) = (volume.to_string(), fake.appliance.to_string());
    let mut pairs = vec![("id", id.as_str())];
    pairs.extend((command == "attachVolume").then_some(("virtualmachineid", machine.as_str())));
    user.done(command, &pairs).await["jobid"].as_str().unwrap().to_owned()
}

async fn state(caller: &Caller, job: &str) -> Value {
    caller.done("queryAsyncJobResult", &[("jobid", job)]).await
}

async fn shown() {
    let (fake, _) = subject(Pace::Polls(2)).await;
    let admin = Caller::admin(&fake);
    let volume = volume(&fake, "v");
    let job = start(&admin, &fake, volume, "attachVolume").await;
    let first = state(&admin, &job).await;
    assert_eq!((&first["jobstatus"], &first["jobid"]), (&json!(0), &json!(job)));
    assert_eq!((&first["jobinstancetype"], &first["jobinstanceid"]), (&json!("Volume"), &json!(volume)));
    assert_eq!(first["cmd"], "org.apache.cloudstack.api.command.user.volume.AttachVolumeCmd");
    assert!(first.get("jobresult").is_none() && first.get("completed").is_none(), "{first}");
    assert_eq!(fake.volume(volume).unwrap().state, VolumeState::Attaching);
    let second = state(&admin, &job).await;
    assert_eq!((&second["jobstatus"], &second["jobresultcode"]), (&json!(1), &json!(0)));
    assert_eq!(second["jobresult"]["volume"]["id"], volume.to_string());
    assert!(second["completed"].is_string(), "{second}");
    let failed = start(&admin, &fake, volume, "attachVolume").await;
    assert_eq!(state(&admin, &failed).await["jobstatus"], 0, "also what cannot be right takes its time");
    let failed = state(&admin, &failed).await;
    assert_eq!((&failed["jobstatus"], &failed["jobresultcode"]), (&json!(2), &json!(431)));
    assert_eq!(
        (&failed["jobresult"]["errorcode"], &failed["jobresulttype"]),
        (&json!(431), &json!("object"))
    );
}

async fn queue() {
    let (fake, _) = subject(Pace::Steps).await;
    let admin = Caller::admin(&fake);
    let volumes: Vec<_> = ["a", "b"].map(|name| volume(&fake, name)).into();
    let mut jobs = Vec::new();
    for volume in &volumes {
        jobs.push(start(&admin, &fake, *volume, "attachVolume").await);
    }
    let states = || volumes.iter().map(|id| fake.volume(*id).unwrap().state).collect::<Vec<_>>();
    assert_eq!(states(), [VolumeState::Attaching, VolumeState::Allocated]);
    assert_eq!(fake.step().unwrap().to_string(), jobs[0]);
    assert_eq!(states(), [VolumeState::Ready, VolumeState::Attaching]);
    assert_eq!(fake.step().unwrap().to_string(), jobs[1]);
    assert_eq!(fake.step(), None);
    let numbers: Vec<_> = fake.attached(fake.appliance).into_iter().map(|(_, number)| number).collect();
    assert_eq!(numbers, [0, 1, 2]);
}

async fn time() {
    let (fake, _) = subject(Pace::Time(Duration::from_secs(4))).await;
    let admin = Caller::admin(&fake);
    let (first, second) = (volume(&fake, "a"), volume(&fake, "b"));
    let jobs = [
        start(&admin, &fake, first, "attachVolume").await,
        start(&admin, &fake, second, "attachVolume").await,
    ];
    fake.advance(Duration::from_secs(3));
    assert_eq!(state(&admin, &jobs[0]).await["jobstatus"], 0);
    fake.advance(Duration::from_secs(1));
    assert_eq!(state(&admin, &jobs[0]).await["jobstatus"], 1);
    assert_eq!(state(&admin, &jobs[1]).await["jobstatus"], 0, "it began when the first was done");
    fake.advance(Duration::from_secs(4));
    assert_eq!(state(&admin, &jobs[1]).await["jobstatus"], 1);
}

async fn looked_at() {
    let (fake, _) = subject(Pace::Polls(3)).await;
    let admin = Caller::admin(&fake);
    let volume = volume(&fake, "v");
    start(&admin, &fake, volume, "attachVolume").await;
    let id = volume.to_string();
    for wanted in ["Attaching", "Attaching", "Ready"] {
        assert_eq!(admin.done("listVolumes", &[("id", &id)]).await["volume"][0]["state"], wanted);
    }
}

async fn race() {
    let (fake, _) = subject(Pace::Polls(1)).await;
    let admin = Caller::admin(&fake);
    let (other, _) = fake.add_appliance("second");
    let volume = volume(&fake, "v");
    let (id, second) = (volume.to_string(), other.to_string());
    let first = start(&admin, &fake, volume, "attachVolume").await;
    let pairs = [("id", id.as_str()), ("virtualmachineid", &second)];
    let (code, text) = admin.job("attachVolume", &pairs).await.unwrap_err();
    assert!(code == 431 && text.contains("Volume state must be"), "it is being attached: {text}");
    admin.result(&first).await.unwrap();
    admin.detach(volume).await.unwrap();

    let before = start(&admin, &fake, self::volume(&fake, "w"), "attachVolume").await;
    let waiting = start(&admin, &fake, volume, "attachVolume").await;
    admin.job("attachVolume", &pairs).await.unwrap();
    admin.result(&before).await.unwrap();
    let (code, text) = admin.result(&waiting).await.unwrap_err();
    assert!(code == 530 && text.contains("This volume is already attached to a VM"), "{text}");
    admin.detach(volume).await.unwrap();
    fake.operate("destroyVolume", &[("id", &id)]).unwrap();
    assert_eq!(admin.job("attachVolume", &pairs).await.unwrap_err().0, 431);
}

async fn custom_ids() {
    let (fake, _) = subject(Pace::Polls(2)).await;
    let admin = Caller::admin(&fake);
    let volume = volume(&fake, "v");
    let (id, machine, job) = (volume.to_string(), fake.appliance.to_string(), Uuid::new_v4().to_string());
    let attach = |job: String| {
        let (admin, id, machine) = (admin.clone(), id.clone(), machine.clone());
        async move {
            let pairs = [("id", id.as_str()), ("virtualmachineid", &machine), ("customjobid", &job)];
            admin.call("attachVolume", &pairs).await
        }
    };
    let unknown = admin.refused("queryAsyncJobResult", &[("jobid", &job)]).await;
    assert!(unknown.0 == 431 && unknown.2.contains("Invalid parameter jobid"), "never accepted: {unknown:?}");
    assert_eq!(attach(job.to_uppercase()).await.refusal().0, 431);
    assert_eq!(attach(job.clone()).await.body()["jobid"], job);
    let (code, class, text) = attach(job.clone()).await.refusal();
    assert!((code, class) == (431, 4350) && text.contains("already exists"), "{text}");
    admin.result(&job).await.unwrap();
    assert_eq!(attach(job).await.refusal().0, 530, "it has ended, its row is there");
}

async fn leak() {
    let (fake, user) = subject(Pace::Polls(1)).await;
    let (zone, offering, job) =
        (fake.zone.to_string(), fake.offering.to_string(), Uuid::new_v4().to_string());
    let pairs =
        [("zoneid", zone.as_str()), ("diskofferingid", &offering), ("size", "1"), ("customjobid", &job)];
    let first = user.done("createVolume", &pairs).await;
    assert_eq!(first["jobid"], job);
    assert_eq!(
        user.done("listVolumes", &[("id", first["id"].as_str().unwrap())]).await["count"],
        1,
        "valid at once"
    );
    user.refused("createVolume", &pairs).await;
    user.refused("createVolume", &pairs).await;
    let states: Vec<_> = fake.data_volumes().iter().map(|volume| volume.state).collect();
    assert_eq!(states, [VolumeState::Allocated; 3]);
}

async fn expired() {
    let (fake, user) = subject(Pace::Polls(1)).await;
    let volume = user.create(&fake, "v", "1").await;
    let job = start(&user, &fake, volume, "attachVolume").await;
    fake.expire_jobs();
    user.result(&job).await.unwrap();
    fake.expire_jobs();
    assert_eq!(user.refused("queryAsyncJobResult", &[("jobid", &job)]).await.0, 431);
    assert_eq!(user.done("listAsyncJobs", &[]).await, json!({}));
    assert!(fake.volume(volume).unwrap().attached.is_some(), "the truth is the volume's state");
}

async fn aged() {
    let (fake, _) = subject(Pace::Steps).await;
    let admin = Caller::admin(&fake);
    let (first, second) = (volume(&fake, "a"), volume(&fake, "b"));
    let stuck = start(&admin, &fake, first, "attachVolume").await;
    fake.advance(Duration::from_mins(59));
    let next = start(&admin, &fake, second, "attachVolume").await;
    let row = admin.done("listVolumes", &[("id", &first.to_string())]).await["volume"][0].clone();
    assert_eq!((&row["jobid"], &row["jobstatus"]), (&json!(stuck), &json!(0)));
    fake.advance(Duration::from_mins(2));
    let cancelled = state(&admin, &stuck).await;
    assert_eq!((&cancelled["jobstatus"], &cancelled["jobresultcode"]), (&json!(2), &json!(530)));
    assert_eq!(fake.volume(first).unwrap().state, VolumeState::Allocated);
    assert_eq!(fake.step().unwrap().to_string(), next);
    fake.advance(Duration::from_hours(24));
    assert_eq!(state(&admin, &next).await["jobstatus"], 1);
    fake.advance(Duration::from_secs(1));
    assert_eq!(admin.refused("queryAsyncJobResult", &[("jobid", &next)]).await.0, 431);
}

/// With as few calls as there can be: two for each job, one for a delete.
async fn many() {
    let (fake, user) = subject(Pace::Polls(1)).await;
    let fake = Arc::new(fake);
    let mut tasks = JoinSet::new();
    for worker in 0..30 {
        let (fake, user) = (fake.clone(), user.clone());
        tasks.spawn(async move {
            for number in 0..10 {
                let volume = user.create(&fake, &format!("v-{worker}-{number}"), "1").await;
                user.attach(&fake, volume).await.unwrap();
                user.detach(volume).await.unwrap();
                user.done("deleteVolume", &[("id", &volume.to_string())]).await;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert!(fake.data_volumes().is_empty());
    let polls = fake.calls("queryAsyncJobResult");
    assert!((900..1800).contains(&polls), "a question moves its queue on, not always its own job: {polls}");
    assert_eq!(fake.take_calls() - polls, 1200);
}

async fn restarted() {
    let (fake, _) = subject(Pace::Steps).await;
    let admin = Caller::admin(&fake);
    for (done, wanted) in [(false, VolumeState::Allocated), (true, VolumeState::Ready)] {
        let volume = volume(&fake, "v");
        let job = start(&admin, &fake, volume, "attachVolume").await;
        fake.restart(done);
        let state = state(&admin, &job).await;
        assert_eq!((&state["jobstatus"], &state["jobresultcode"]), (&json!(2), &json!(530)));
        assert!(state.get("jobresult").is_none(), "{state}");
        let volume = fake.volume(volume).unwrap();
        assert_eq!((volume.state, volume.attached.is_some()), (wanted, done));
    }
    assert_eq!(fake.step(), None);
}

async fn accounts() {
    let (fake, user) = subject(Pace::Polls(1)).await;
    let volume = user.create(&fake, "v", "1").await;
    let job = start(&user, &fake, volume, "attachVolume").await;
    let (other, admin) = (Caller::new(&fake, &fake.other), Caller::admin(&fake));
    assert_eq!(other.refused("queryAsyncJobResult", &[("jobid", &job)]).await.0, 531);
    assert_eq!(state(&admin, &job).await["jobstatus"], 1);
    assert_eq!(other.done("listAsyncJobs", &[("listall", "true")]).await, json!({}));
    let all = admin.done("listAsyncJobs", &[("listall", "true")]).await;
    assert_eq!((&all["count"], &all["asyncjobs"][0]["jobid"]), (&json!(2), &json!(job)), "the newest first");
}

async fn slow() {
    let (fake, user) = subject(Pace::Polls(1)).await;
    fake.fault("attachVolume", 1, 1, What::Slow(5));
    let (first, second) = (user.create(&fake, "a", "1").await, user.create(&fake, "b", "1").await);
    fake.take_calls();
    user.attach(&fake, first).await.unwrap();
    assert_eq!(fake.calls("queryAsyncJobResult"), 1);
    user.attach(&fake, second).await.unwrap();
    assert_eq!(fake.calls("queryAsyncJobResult"), 6);
    assert_eq!(fake.take_calls(), 8);
}
