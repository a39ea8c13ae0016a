//! Who a VM is, and which disks of it were asked for.

use super::*;
use crate::InstanceUuid;
use crate::engine::PathPolicy;
use crate::record::SourceVm;

/// The VM as its source describes it, with another path or identity.
async fn described(world: &World, change: impl FnOnce(&mut SourceVm)) -> SourceVm {
    let mut vm = world.source.discover(&world.vm).await.unwrap();
    change(&mut vm);
    vm
}

async fn verified(world: &World) -> Result<()> {
    let services = world.services().0;
    let (config, stop) = (world.config, CancellationToken::new());
    verify(&services, &config, &VerifyRequest::new(world.vm.clone()), &Silent, &stop).await.map(drop)
}

#[tokio::test]
async fn a_vm_that_is_known_by_another_path_is_renamed_only_when_asked() {
    let world = World::new(&["disk-2000"]).await;
    world.run().await;
    let elsewhere = VmPath::parse("/DC/vm/elsewhere").unwrap();
    let known = world.store.record(&described(&world, |vm| vm.path = elsewhere.clone()).await).await.unwrap();
    let error = world.run_as(&world.request(), &Silent).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.chain().contains("known as /DC/vm/elsewhere"), "{}", error.chain());
    assert_eq!(verified(&world).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(
        world.store.contexts(None).try_collect::<Vec<_>>().await.unwrap(),
        std::slice::from_ref(&known)
    );
    assert_eq!(world.jobs().await.len(), 1, "nothing was recorded");

    let request = ReplicateRequest { path: PathPolicy::Rename, ..world.request() };
    world.run_as(&request, &Silent).await.unwrap();
    world.assert_replicated(2).await;
    assert_eq!(world.store.by_path(&world.vm).await.unwrap().unwrap().id, known.id);
    verified(&world).await.unwrap();
}

#[tokio::test]
async fn a_path_that_another_vm_has_is_not_taken_unless_the_source_says_so() {
    let world = World::new(&["disk-2000"]).await;
    let other = |vm: &mut SourceVm| vm.identity.instance_uuid = InstanceUuid::parse("another").unwrap();
    let other = world.store.record(&described(&world, other).await).await.unwrap();
    for path in [PathPolicy::Keep, PathPolicy::Rename] {
        let request = ReplicateRequest { path, ..world.request() };
        let error = world.run_as(&request, &Silent).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.chain().contains("of another VM, another at vcenter"), "{}", error.chain());
    }
    assert_eq!(world.store.contexts(None).try_collect::<Vec<_>>().await.unwrap(), [other]);
    let request = ReplicateRequest { path: PathPolicy::Follow, ..world.request() };
    assert!(world.run_as(&request, &Silent).await.unwrap().outcome.is_completed());
    // From now on it is known by it.
    assert!(world.run().await.outcome.is_completed());
}

/// Keeps warnings.
#[derive(Debug, Default)]
struct Warnings(Mutex<Vec<String>>);

impl Progress for Warnings {
    fn event(&self, event: Event<'_>) {
        if let Event::Warning(text) = event {
            self.0.lock().unwrap().push(text.to_owned());
        }
    }
}

#[tokio::test]
async fn a_disk_that_is_left_out_is_told_once() {
    let world = World::new(&["disk-2000", "disk-2001"]).await;
    assert_eq!(world.run().await.warnings, [""; 0]);
    let left = world.source.disk(&world.vm, &key("disk-2001")).unwrap();
    world.source.remove_disk(&world.vm, &key("disk-2001"));
    let warnings = Warnings::default();
    let (services, stop) = (world.services().0, CancellationToken::new());
    verify(&services, &world.config, &VerifyRequest::new(world.vm.clone()), &warnings, &stop).await.unwrap();
    assert_eq!(
        *warnings.0.lock().unwrap(),
        ["disk disk-2001 is of epoch 1, too, and is left out: it is not compared"]
    );
    assert_eq!(world.run().await.warnings, ["disk disk-2001 is left out and stays at epoch 1"]);
    assert_eq!(world.run().await.warnings, [""; 0]);
    assert!(left.bytes() == world.target("disk-2001").await.bytes());
}
