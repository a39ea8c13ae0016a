//! The life of one volume in whatever cloud is named: the only test here that can tell how a real one behaves.

use std::env;
use std::fs;

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use oma_core::conformance::{self, Trial};
use oma_core::record::VolumeTag;
use oma_core::traits::{Access, Durability, Provisioning, VolumeBackend, VolumeSpec};
use oma_core::{ByteSize, DiskRef, Generation, InstanceId, OperationId};
use oma_volume::cloudstack::{CloudStackBackend, CloudStackConfig, Keys};

use super::insist;

/// A file with a `CloudStackConfig`; the keys are in the variables that `cs` knows.
const CONFIG: &str = "OMA_CLOUDSTACK_CONFIG";

pub(crate) fn trials() -> Vec<Trial> {
    let name = "cloudstack_real::a_volume_lives_in_the_cloud_that_is_named";
    match env::var(CONFIG) {
        Ok(path) => vec![conformance::trial(name, &[], || lives(path))],
        Err(_) => vec![
            Trial::test(name, || Ok(()))
                .with_ignored_flag(true)
                .with_kind(format!("{CONFIG} names no cloud")),
        ],
    }
}

fn backend(path: &str) -> CloudStackBackend {
    let config: CloudStackConfig = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let [key, secret] = ["CLOUDSTACK_KEY", "CLOUDSTACK_SECRET"].map(|name| env::var(name).unwrap());
    CloudStackBackend::new(config, Keys::new(&key, &secret).unwrap()).unwrap()
}

async fn lives(path: String) {
    let backend = backend(&path);
    let report = backend.preflight().await.unwrap();
    assert!(report.is_ready(), "{report:#?}");
    let disk = DiskRef { context: "ctx-real".parse().unwrap(), key: "disk-2000".parse().unwrap() };
    let mut tag = VolumeTag { instance: InstanceId::mint(), disk, generation: Generation::FIRST };
    let (operation, provisioning) = (OperationId::mint(), Provisioning::Thin);
    let (name, capacity) = ("oma acceptance".to_owned(), ByteSize::mib(1));
    let spec = VolumeSpec { operation, tag: tag.clone(), name, capacity, provisioning };

    let volume = insist(|| backend.create(&spec)).await;
    assert_eq!(insist(|| backend.create(&spec)).await, volume, "one operation makes one volume");
    let attached = insist(|| backend.attach(&volume.id, &tag)).await;
    assert!(attached.device_path.is_some() && attached.capacity >= capacity, "{attached:?}");
    let device = insist(|| backend.open(&volume.id, &tag, Access::ReadWrite)).await;
    device.write_at(4096, Bytes::from_static(b"content"), Durability::Durable).await.unwrap();
    drop(device);
    insist(|| backend.detach(&volume.id, &tag)).await;
    tag.generation = tag.generation.next();
    insist(|| backend.retag(&volume.id, &tag)).await;
    insist(|| backend.attach(&volume.id, &tag)).await;
    if backend.capabilities().resize {
        let grown = insist(|| backend.resize(&volume.id, &tag, ByteSize::gib(2))).await;
        assert_eq!(grown.capacity, ByteSize::gib(2));
    }
    let device = insist(|| backend.open(&volume.id, &tag, Access::ReadOnly)).await;
    assert_eq!(device.read_at(4096, BytesMut::zeroed(7)).await.unwrap(), "content");
    drop(device);
    insist(|| backend.delete(&volume.id, &tag)).await;
    let left: Vec<_> = backend.list(&tag.instance).try_collect().await.unwrap();
    assert!(left.is_empty(), "{left:?}");
}
