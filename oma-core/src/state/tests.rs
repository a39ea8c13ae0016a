use super::*;

/// Every allowed step of a machine as `state event state`, one a line.
macro_rules! table {
    ($state:ty, $event:ty) => {{
        let mut rows = Vec::new();
        for state in <$state>::ALL {
            for event in <$event>::ALL {
                if let Ok(next) = state.next(*event) {
                    rows.push(format!("{state} {event} {next}"));
                }
            }
        }
        rows.join("\n")
    }};
}

macro_rules! labels {
    ($($name:ty),+) => {{
        let mut all = Vec::new();
        $(
            for value in <$name>::ALL {
                assert_eq!(value.as_str().parse::<$name>().as_ref(), Ok(value));
            }
            assert!("no such label".parse::<$name>().is_err());
            all.push(<$name>::ALL.iter().map(|v| v.as_str()).collect::<Vec<_>>().join(" "));
        )+
        all
    }};
}

#[test]
fn stored_labels_never_change() {
    let labels = labels!(
        JobStatus,
        JobKind,
        ReplicationType,
        DiskStatus,
        OperationKind,
        OperationStatus,
        VolumeStatus,
        ExportStatus,
        ContextStatus,
        LogLevel,
        LineStream,
        PointStatus,
        Role,
        TokenKind,
        CleanupStatus,
        CleanupStepStatus,
        FailoverKind,
        FailoverStatus
    );
    assert_eq!(
        labels,
        [
            "initializing provisioning ready replicating finalizing completed failed cancelled",
            "replicate revert operate",
            "initial incremental",
            "pending syncing completed failed",
            "create attach detach delete resize snapshot revert delete_snapshot",
            "pending executing completed failed cancelled",
            "creating created attached detached condemned deleting deleted",
            "starting running draining stopped",
            "discovered replicating ready_for_failover failed_over_test failed_over_live completed failed cleanup_required",
            "DEBUG INFO WARN ERROR",
            "stdout stderr",
            "creating taken ready deleting",
            "agent viewer operator admin",
            "api session",
            "planned executing completed refused",
            "pending executing done failed refused",
            "live test",
            "pending validating snapshotting creating_vm switching_volume powering_on completed reverting reverted failed cleanup",
        ]
    );
}

#[test]
fn l26_a_cleanup_ends_completed_or_refused() {
    let table = table!(CleanupStatus, CleanupEvent);
    assert_eq!(
        table,
        "planned execute executing\nplanned refuse refused\n\
         executing execute executing\nexecuting complete completed\nexecuting refuse refused"
    );
}

#[test]
fn a_job_moves_forward_or_ends() {
    let table = table!(JobStatus, JobEvent);
    assert_eq!(
        table,
        "initializing provision provisioning\ninitializing operated completed\ninitializing fail failed\ninitializing cancel cancelled\n\
         provisioning prepared ready\nprovisioning fail failed\nprovisioning cancel cancelled\n\
         ready copy replicating\nready fail failed\nready cancel cancelled\n\
         replicating copied finalizing\nreplicating fail failed\nreplicating cancel cancelled\n\
         finalizing committed completed\nfinalizing fail failed\nfinalizing cancel cancelled"
    );
}

#[test]
fn nothing_leaves_a_terminal_state() {
    for status in JobStatus::ALL.iter().filter(|s| s.is_terminal()) {
        assert!(JobEvent::ALL.iter().all(|event| status.next(*event).is_err()));
    }
    for status in OperationStatus::ALL.iter().filter(|s| s.is_terminal()) {
        assert!(OperationEvent::ALL.iter().all(|event| status.next(*event).is_err()));
    }
    for event in ExportEvent::ALL {
        assert!(ExportStatus::Stopped.next(*event).is_err());
    }
    for event in VolumeEvent::ALL {
        assert!(VolumeStatus::Deleted.next(*event).is_err());
    }
}

#[test]
fn l07_a_vm_failed_over_live_is_never_replicated_again() {
    for event in ContextEvent::ALL {
        assert!(ContextStatus::FailedOverLive.next(*event).is_err());
    }
}

#[test]
fn l07_only_what_failed_over_or_has_ended_keeps_a_vm_from_being_replicated() {
    use ContextStatus::{Completed, FailedOverLive, FailedOverTest};
    for status in ContextStatus::ALL {
        let is_held = [FailedOverTest, FailedOverLive, Completed].contains(status);
        assert_eq!(status.next(ContextEvent::Replicate).is_err(), is_held, "{status}");
    }
}

#[test]
fn only_a_volume_that_nobody_uses_is_deleted() {
    use VolumeStatus::{Condemned, Created, Detached};
    for status in VolumeStatus::ALL {
        let unused = [Created, Detached, Condemned].contains(status);
        assert_eq!(status.next(VolumeEvent::Delete).is_ok(), unused, "{status}");
    }
}

#[test]
fn a_running_export_stops_only_by_draining() {
    assert!(ExportStatus::Running.next(ExportEvent::Stopped).is_err());
    assert_eq!(table!(ExportStatus, ExportEvent).lines().count(), 6);
}

#[test]
fn a_refusal_names_state_and_event() {
    let refused = JobStatus::Completed.next(JobEvent::Fail).unwrap_err();
    assert_eq!(refused.to_string(), "replication job: fail is not possible in state completed");
}

#[test]
fn disk_and_operation_and_context_tables_are_as_designed() {
    assert_eq!(
        table!(DiskStatus, DiskEvent),
        "pending assign pending\npending start syncing\npending committed completed\npending fail failed\n\
         syncing assign pending\nsyncing start syncing\nsyncing committed completed\nsyncing fail failed\n\
         completed assign pending\ncompleted committed completed\nfailed assign pending\nfailed fail failed"
    );
    assert_eq!(
        table!(OperationStatus, OperationEvent),
        "pending execute executing\npending fail failed\npending cancel cancelled\n\
         executing execute executing\nexecuting complete completed\nexecuting fail failed"
    );
    assert_eq!(
        table!(ContextStatus, ContextEvent),
        "discovered replicate replicating\nreplicating replicate replicating\n\
         replicating committed ready_for_failover\nreplicating fail failed\n\
         ready_for_failover replicate replicating\nfailed replicate replicating\n\
         cleanup_required replicate replicating"
    );
}
