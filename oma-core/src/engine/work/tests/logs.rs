use super::*;
use crate::record::{JobStep, LogFilter, Page, PageStart};
use crate::state::{LogLevel, StepStatus};
use crate::traits::{JobLog as _, LogStore as _};

impl World {
    async fn steps(&self, id: &JobId) -> Vec<JobStep> {
        self.store.steps(id, 0, u32::MAX).await.unwrap()
    }

    async fn lines(&self, id: &JobId) -> Vec<(Option<u32>, LogLevel, String)> {
        let filter = LogFilter { job: Some(id.clone()), ..LogFilter::default() };
        let page = Page { start: PageStart::Oldest, limit: Page::LARGEST };
        let events = self.store.events(&filter, &page).await.unwrap();
        events.into_iter().map(|(_, event)| (event.step, event.level, event.message)).collect()
    }
}

#[tokio::test]
async fn the_log_of_a_job_has_its_steps_and_what_was_planned_copied_and_committed() {
    let world = World::new();
    let vm = world.add("a").await;
    let id = world.submit(&vm).await;
    let running = world.worker("one");
    world.until_ended(&id, JobStatus::Completed).await;
    running.end().await;
    let steps = world.steps(&id).await;
    let names: Vec<_> = steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["freeze", "provision", "publish", "plan", "copy", "withdraw", "commit"]);
    for step in &steps {
        assert_eq!((step.status, step.attempt), (StepStatus::Completed, crate::Fence(1)), "{step:?}");
        assert!(step.ended_at.unwrap() >= step.started_at && step.worker.is_some());
    }
    let lines = world.lines(&id).await;
    let (_, _, first) = &lines[0];
    assert_eq!(first, "one drives the job");
    let planned = lines.iter().find(|(step, ..)| *step == Some(4)).unwrap();
    assert_eq!(planned.2, "disk disk-2000: initial, 4.0 MiB of 4.0 MiB to cover");
    assert_eq!(lines.last().unwrap(), &(None, LogLevel::Info, "epoch 1 is committed".to_owned()));
}

#[tokio::test]
async fn each_attempt_tells_in_which_step_it_failed_and_why() {
    let world = World::new();
    let vm = world.add("a").await;
    world.source.faults(&key()).fail_reads_in(whole());
    let id = world.submit(&vm).await;
    let running = world.worker("one");
    world.until(&id, |job| job.attempts == 1 && job.owner.is_none()).await;
    world.source.faults(&key()).clear();
    world.clock.advance(Duration::from_secs(10));
    world.until_ended(&id, JobStatus::Completed).await;
    running.end().await;
    let steps = world.steps(&id).await;
    let failed: Vec<_> = steps.iter().filter(|step| step.status == StepStatus::Failed).collect();
    assert_eq!(failed.iter().map(|step| step.name.as_str()).collect::<Vec<_>>(), ["copy"]);
    assert!(failed[0].error.is_some() && failed[0].attempt == crate::Fence(1));
    assert_eq!(steps.last().unwrap().attempt, crate::Fence(2));
    let lines = world.lines(&id).await;
    let errors: Vec<_> = lines.iter().filter(|(_, level, _)| *level == LogLevel::Error).collect();
    assert!(
        errors.iter().any(|(.., message)| message.starts_with("the attempt failed, another one follows: "))
    );
}

#[tokio::test]
async fn a_job_that_cannot_be_begun_or_is_cancelled_says_so_in_its_log() {
    let world = World::new();
    let vm = world.add("a").await;
    let submission = Submission { request: String::new(), ..world.submission(&vm) };
    let request = ReplicateRequest::new(vm);
    let refused = world.replicator("clerk").submit(&request, submission).await.unwrap().id;
    let running = world.worker("one");
    world.until_ended(&refused, JobStatus::Failed).await;
    running.end().await;
    assert!(world.lines(&refused).await[0].2.starts_with("the job cannot be begun: "));

    let vm = world.add("b").await;
    let waiting = world.submit(&vm).await;
    world.store.want(&waiting, Wanted::Cancel).await.unwrap();
    let running = world.worker("one");
    world.until_ended(&waiting, JobStatus::Cancelled).await;
    running.end().await;
    let told = (None, LogLevel::Warn, "the job is cancelled: an operator cancelled it".to_owned());
    assert_eq!(world.lines(&waiting).await, [told]);
}
