//! Lists are read page by page, and a page costs what is on it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use oma_core::record::{
    ContentStamp, DiskRecord, Lease, Operation, OperationFilter, OperationSpec, SourceIdentity, SourceVm,
    VmContext, VolumeFilter, VolumeRecord,
};
use oma_core::traits::{Inventory, Volume, VolumeRegistry};
use oma_core::{ContextId, DiskRef, Generation, InstanceId, OperationId, VmPath, VolumeId};

use super::*;

/// Counts the rows that are read of lists.
#[derive(Debug, Default)]
struct Counted {
    store: Arc<MemoryStore>,
    rows: AtomicUsize,
}

/// Implements a trait of the store.
macro_rules! counted {
    ($counted:ident { $($name:ident($($arg:ident: $ty:ty),*) -> $answer:ty;)* }
     { $($list:ident($list_arg:ident: $list_ty:ty) -> $item:ty;)* }) => {
        #[async_trait::async_trait]
        impl $counted for Counted {
            $(async fn $name(&self, $($arg: $ty),*) -> Result<$answer> {
                $counted::$name(&*self.store, $($arg),*).await
            })*
            $(fn $list(&self, $list_arg: $list_ty) -> BoxStream<'_, Result<$item>> {
                let list = $counted::$list(&*self.store, $list_arg);
                list.inspect(|_| self.count()).boxed()
            })*
        }
    };
}

counted! { Inventory {
    record(vm: &SourceVm) -> VmContext;
    context(id: &ContextId) -> Option<VmContext>;
    by_identity(identity: &SourceIdentity) -> Option<VmContext>;
    by_path(path: &VmPath) -> Option<VmContext>;
    disk(disk: &DiskRef) -> Option<DiskRecord>;
    disks(context: &ContextId) -> Vec<DiskRecord>;
    remove_vm(id: &ContextId) -> ();
} {
    contexts(after: Option<&ContextId>) -> VmContext;
} }

counted! { VolumeRegistry {
    instance() -> InstanceId;
    begin(lease: &Lease, spec: &OperationSpec) -> Operation;
    condemn(lease: &Lease, spec: &OperationSpec, grace: Duration) -> Operation;
    execute(lease: &Lease, id: &OperationId) -> Operation;
    pardon(lease: &Lease, id: &OperationId, reason: &str) -> Operation;
    doubt(lease: &Lease, id: &OperationId, why: &str) -> ();
    operation(id: &OperationId) -> Option<Operation>;
    unfinished(disk: &DiskRef) -> Option<Operation>;
    complete(lease: &Lease, id: &OperationId, volume: &Volume, zeroed: bool) -> VolumeRecord;
    fail(lease: &Lease, id: &OperationId, error: &str) -> ();
    volume(id: &VolumeId) -> Option<VolumeRecord>;
    volume_of(disk: &DiskRef) -> Option<VolumeRecord>;
    volume_at(machine: &WorkerId, device_path: &str) -> Option<VolumeRecord>;
    mark_inconsistent(lease: &Lease, id: &VolumeId) -> ();
    keep_stamp(lease: &Lease, id: &VolumeId, stamp: &ContentStamp) -> ();
    advance_generation(lease: &Lease, id: &VolumeId) -> Generation;
    renew_generation(lease: &Lease, id: &VolumeId) -> Generation;
    distrust_zeroes(lease: &Lease, id: &VolumeId) -> Generation;
    forget(lease: &Lease, id: &VolumeId) -> ();
} {
    operations(filter: OperationFilter) -> Operation;
    volumes(filter: VolumeFilter) -> VolumeRecord;
} }

impl Counted {
    fn count(&self) {
        self.rows.fetch_add(1, Ordering::SeqCst);
    }

    /// Since it was asked before.
    fn rows(&self) -> usize {
        self.rows.swap(0, Ordering::SeqCst)
    }
}

fn counted() -> (World, Arc<Counted>) {
    let counted = Arc::new(Counted::default());
    let (store, backend) = (counted.store.clone(), Arc::new(MemoryBackend::new()));
    let services = VolumeServices { jobs: store.clone(), volumes: counted.clone(), backend };
    (World::over("test", services, counted.clone(), store), counted)
}

#[tokio::test]
async fn a_page_reads_its_own_rows_wherever_it_is_in_its_list() {
    let (world, counted) = counted();
    for at in 0..40 {
        world.volume(&format!("web{at}")).await;
    }
    counted.rows();
    for list in [
        "/vms?",
        "/volumes?",
        "/volumes?status=created&",
        "/operations?",
        "/operations?order=oldest&",
        "/operations?type=create&status=completed&",
        "/operations?type=create&status=completed&order=oldest&",
    ] {
        let (mut all, mut after, mut pages) = (BTreeSet::new(), String::new(), 0);
        loop {
            let page = world.get(&format!("{list}limit=6{after}")).await;
            let rows = page["items"].as_array().unwrap();
            assert!(counted.rows() <= rows.len() + 1, "{list} page {pages}");
            all.extend(rows.iter().map(Value::to_string));
            pages += 1;
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => break,
            }
        }
        assert_eq!((all.len(), pages), (40, 7), "{list}");
    }
}

#[tokio::test]
async fn volumes_and_operations_are_listed_by_vm_and_by_state() {
    let world = World::new();
    let (id, other) = (world.volume("web01").await, world.volume("web02").await);
    world.done(Method::POST, &format!("/volumes/{id}/attach"), None).await;
    let vm = world.get(&format!("/volumes/{id}")).await["context_id"].as_str().unwrap().to_owned();
    let ids = async |list: &str, field: &str| -> Vec<Value> {
        let page = world.get(list).await;
        page["items"].as_array().unwrap().iter().map(|row| row[field].clone()).collect()
    };
    assert_eq!(ids("/volumes?status=attached", "volume_id").await, [json!(id)]);
    assert_eq!(ids("/volumes?status=created", "volume_id").await, [json!(other)]);
    assert_eq!(ids(&format!("/volumes?context_id={vm}"), "volume_id").await, [json!(id)]);
    for none in
        [format!("/volumes?context_id={vm}&status=created"), "/volumes?context_id=ctx-none".to_owned()]
    {
        assert!(ids(&none, "volume_id").await.is_empty(), "{none}");
    }
    let of_volume = format!("/operations?volume_id={id}");
    assert_eq!(ids(&of_volume, "kind").await, ["attach", "create"]);
    assert_eq!(ids(&format!("{of_volume}&order=oldest&context_id={vm}"), "kind").await, ["create", "attach"]);
    assert_eq!(ids(&format!("{of_volume}&type=attach&status=completed"), "kind").await, ["attach"]);
    assert!(ids(&format!("{of_volume}&context_id=ctx-none"), "kind").await.is_empty());
    let (status, problem) = world.ask(Method::GET, "/volumes?status=lost", None).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("attached"), "{problem}");
}

#[tokio::test]
async fn a_vm_is_found_by_its_path_without_reading_a_list() {
    let (world, counted) = counted();
    let (id, _) = (world.vm("web01").await, world.vm("web010").await);
    let path = "/vms?vm_path=/DC/vm/web01";
    let page = world.get(path).await;
    assert_eq!((&page["items"][0]["context_id"], &page["next"]), (&json!(id), &Value::Null), "{page}");
    assert_eq!(page["items"].as_array().unwrap().len(), 1, "{page}");
    for none in [format!("{path}&after={id}"), "/vms?vm_path=/DC/vm/web".to_owned()] {
        assert_eq!(world.get(&none).await, json!({ "items": [], "next": null }), "{none}");
    }
    assert_eq!(counted.rows(), 0);
    let (status, problem) = world.ask(Method::GET, "/vms?vm_path=", None).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{problem}");
}

#[tokio::test]
async fn the_volume_of_a_device_is_found_without_reading_a_list() {
    let (world, counted) = counted();
    let (id, other) = (world.volume("web01").await, world.volume("web02").await);
    for id in [&id, &other] {
        world.done(Method::POST, &format!("/volumes/{id}/attach"), None).await;
    }
    let device = world.get(&format!("/volumes/{id}/device")).await["device_path"].clone();
    counted.rows();
    let path = format!("/devices/volume?path={}", device.as_str().unwrap());
    assert_eq!(world.get(&path).await["volume_id"], json!(id));
    let (status, _) = world.ask(Method::GET, "/devices/volume?path=/dev/none", None).await;
    assert_eq!((status, counted.rows()), (StatusCode::NOT_FOUND, 0));
}

#[tokio::test]
async fn a_page_behind_what_no_page_ended_with_is_refused_or_empty() {
    let world = World::new();
    world.volume("web01").await;
    for list in [
        "/operations?after=op-none",
        "/operations?order=oldest&after=op-none",
        "/operations?order=oldest&after=oldest/op-none",
        "/volumes?after=a%2Fb",
        "/vms?after=",
    ] {
        let (status, problem) = world.ask(Method::GET, list, None).await;
        assert_eq!((status, &problem["title"]), (StatusCode::BAD_REQUEST, &json!("invalid")), "{list}");
        assert!(problem["detail"].as_str().unwrap().contains("leave it out"), "{problem}");
    }
    // It may have been removed since.
    assert_eq!(world.get("/volumes?after=zzz").await, json!({ "items": [], "next": null }));
}
