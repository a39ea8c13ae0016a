//! What a machine says of its disks, nodes and exports.

use std::collections::{BTreeMap, BTreeSet};

use oma_core::DiskKey;
use serde::Deserialize;
use serde_json::json;

use super::bitmaps::Bitmap;
use super::error::Failure;
use super::names::{Role, Tag, is_gate};
use super::qmp::Qmp;

/// A machine at one moment.
#[derive(Debug)]
pub(super) struct Machine {
    /// Its writable disks, by key.
    pub(super) disks: BTreeMap<DiskKey, Disk>,
    /// What else there is, and why it is not replicated.
    pub(super) skipped: Vec<String>,
    /// Ids of all exports; of which type does not matter.
    pub(super) exports: BTreeSet<String>,
    nodes: BTreeMap<String, Node>,
    /// The child `file` of each node.
    below: BTreeMap<String, String>,
    /// Nodes that a device or another user stands on.
    used: BTreeSet<String>,
}

/// A disk of the machine.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    /// What its `drive` is set on.
    pub(super) device: String,
    /// The node that its device stands on.
    pub(super) top: String,
    /// The first node below that is not ours.
    pub(super) base: String,
    /// The node that its bitmaps belong to: no filter.
    pub(super) node: String,
    pub(super) driver: String,
    /// Whether its format stores bitmaps.
    pub(super) stores_bitmaps: bool,
    pub(super) capacity: u64,
    pub(super) location: String,
    pub(super) bitmaps: Vec<Bitmap>,
}

/// A node as QEMU reports it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Node {
    pub(super) node_name: String,
    drv: String,
    #[serde(default)]
    pub(super) file: String,
    image: Image,
    #[serde(default)]
    dirty_bitmaps: Vec<Bitmap>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Image {
    virtual_size: u64,
    format_specific: Option<FormatSpecific>,
}

#[derive(Clone, Debug, Deserialize)]
struct FormatSpecific {
    #[serde(default)]
    data: serde_json::Value,
}

/// A device with a medium or without, as QEMU reports it.
#[derive(Debug, Deserialize)]
struct Device {
    #[serde(default)]
    device: String,
    qdev: Option<String>,
    removable: bool,
    inserted: Option<Inserted>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Inserted {
    node_name: String,
    ro: bool,
}

#[derive(Debug, Deserialize)]
struct Graph {
    nodes: Vec<GraphNode>,
    edges: Vec<Edge>,
}

#[derive(Debug, Deserialize)]
struct GraphNode {
    id: u64,
    name: String,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Debug, Deserialize)]
struct Edge {
    parent: u64,
    child: u64,
    name: String,
}

#[derive(Debug, Deserialize)]
struct Export {
    id: String,
}

/// Nodes that pass everything on and have no bitmaps of their own.
const FILTERS: [&str; 6] =
    ["throttle", "copy-on-read", "compress", "preallocate", "blkdebug", "copy-before-write"];

impl Machine {
    /// Asks for everything; commands of others may come between, but not of ours.
    pub(super) async fn look(qmp: &mut Qmp) -> Result<Self, Failure> {
        let devices: Vec<Device> = qmp.ask("query-block", json!({})).await?;
        let nodes: Vec<Node> = qmp.ask("query-named-block-nodes", json!({ "flat": true })).await?;
        // Marked as experimental, but in every release since 4.0, and nothing else tells which node stands on which.
        let graph: Graph = qmp.ask("x-debug-query-block-graph", json!({})).await?;
        let exports: Vec<Export> = qmp.ask("query-block-exports", json!({})).await?;
        let nodes = nodes.into_iter().map(|node| (node.node_name.clone(), node)).collect();
        let (below, used) = edges(&graph);
        let exports = exports.into_iter().map(|export| export.id).collect();
        let mut machine = Self { disks: BTreeMap::new(), skipped: Vec::new(), exports, nodes, below, used };
        for device in devices {
            machine.take(&device)?;
        }
        Ok(machine)
    }

    fn take(&mut self, device: &Device) -> Result<(), Failure> {
        let name = device.qdev.as_deref().unwrap_or(&device.device);
        let Some(inserted) = &device.inserted else {
            self.skipped.push(format!("{name}: it has no medium"));
            return Ok(());
        };
        let reason = match device {
            _ if inserted.ro => "it is read-only",
            _ if device.removable => "its medium can be removed",
            _ if is_firmware(name, &device.device) => "it is firmware",
            _ if device.qdev.is_none() => "no device uses it",
            _ => {
                let (key, disk) = self.disk(device, name, inserted)?;
                return match self.disks.insert(key.clone(), disk) {
                    None => Ok(()),
                    Some(_) => Err(Failure::SameKey(key.to_string())),
                };
            }
        };
        self.skipped.push(format!("{name}: {reason}"));
        Ok(())
    }

    fn disk(&self, device: &Device, name: &str, inserted: &Inserted) -> Result<(DiskKey, Disk), Failure> {
        let top = inserted.node_name.clone();
        let base = self.descend(&top, |name, _| is_gate(name) || Tag::of_node(name).is_some());
        let key = key(device.qdev.as_deref().unwrap_or_default(), &device.device, &base);
        let key = key.ok_or_else(|| Failure::Nameless(name.to_owned()))?;
        let bottom = self.descend(&base, |_, node| FILTERS.contains(&node.drv.as_str()));
        let node = self.nodes.get(&bottom).ok_or_else(|| Failure::Garbage(format!("no node {bottom}")))?;
        let compat = node.image.format_specific.as_ref().and_then(|specific| specific.data.get("compat"));
        let disk = Disk {
            device: if name.starts_with('/') {
                name.to_owned()
            } else {
                format!("/machine/peripheral/{name}")
            },
            top,
            base,
            driver: node.drv.clone(),
            stores_bitmaps: node.drv == "qcow2" && compat.and_then(|c| c.as_str()) != Some("0.10"),
            capacity: node.image.virtual_size,
            location: node.file.clone(),
            bitmaps: node.dirty_bitmaps.clone(),
            node: bottom,
        };
        Ok((key, disk))
    }

    fn descend(&self, from: &str, through: impl Fn(&str, &Node) -> bool) -> String {
        let mut at = from;
        // No further than there are nodes: a machine that tells of a circle does not keep this busy for ever.
        for _ in 0..self.nodes.len() {
            match (self.nodes.get(at), self.below.get(at)) {
                (Some(node), Some(below)) if through(at, node) => at = below,
                _ => break,
            }
        }
        at.to_owned()
    }

    /// A node by its name.
    pub(super) fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// What a node stands on.
    pub(super) fn below(&self, name: &str) -> Option<&str> {
        self.below.get(name).map(String::as_str)
    }

    /// The node of ours that stands on a filter of ours: a gate or the base of another point.
    pub(super) fn above(&self, filter: &str) -> Option<&str> {
        let ours = |name: &str| is_gate(name) || matches!(Tag::of_node(name), Some((Role::Base, _)));
        self.below.iter().find(|(name, below)| *below == filter && ours(name)).map(|(name, _)| name.as_str())
    }

    /// Gates, whether they are in use or not.
    pub(super) fn gates(&self) -> impl Iterator<Item = &str> {
        self.nodes.keys().map(String::as_str).filter(|name| is_gate(name))
    }

    /// Whether anything stands on a node.
    pub(super) fn is_used(&self, name: &str) -> bool {
        self.used.contains(name)
    }

    /// Everything of ours that belongs to a point in time, by the job's tag.
    pub(super) fn tags(&self) -> BTreeMap<String, BTreeSet<Tag>> {
        let nodes = self.nodes.keys().filter_map(|name| Some(Tag::of_node(name)?.1));
        let exports = self.exports.iter().filter_map(|id| Tag::of_id(id));
        let mut tags: BTreeMap<String, BTreeSet<Tag>> = BTreeMap::new();
        for tag in nodes.chain(exports) {
            tags.entry(tag.job().to_owned()).or_default().insert(tag);
        }
        tags
    }

    /// Whether every disk of a point in time is exported: exporting is the last step of freezing and the first of releasing.
    pub(super) fn is_complete(&self, tags: &BTreeSet<Tag>) -> bool {
        !tags.is_empty()
            && tags.iter().all(|tag| {
                self.exports.contains(&tag.id()) && self.nodes.contains_key(&tag.node(Role::Filter))
            })
    }
}

fn edges(graph: &Graph) -> (BTreeMap<String, String>, BTreeSet<String>) {
    let names: BTreeMap<u64, &GraphNode> = graph.nodes.iter().map(|node| (node.id, node)).collect();
    let (mut below, mut used) = (BTreeMap::new(), BTreeSet::new());
    for edge in &graph.edges {
        let (Some(parent), Some(child)) = (names.get(&edge.parent), names.get(&edge.child)) else { continue };
        used.insert(child.name.clone());
        if parent.kind == "block-driver" && edge.name == "file" {
            below.insert(parent.name.clone(), child.name.clone());
        }
    }
    (below, used)
}

/// Whether a device is the machine's flash: `-drive if=pflash`, or `-machine pflash1=NODE`, whose device QEMU makes itself. What
/// firmware keeps there is a setting of the machine, and no device whose medium could be exchanged.
fn is_firmware(device: &str, drive: &str) -> bool {
    let made = device.strip_prefix("/machine/").and_then(|rest| rest.split_once(".flash"));
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    drive.starts_with("pflash")
        || made.is_some_and(|(machine, flash)| !machine.contains('/') && number(flash))
}

/// The name of a disk that lasts: its device's id, else its drive's, else its node's. Names that QEMU makes up do not.
fn key(qdev: &str, drive: &str, node: &str) -> Option<DiskKey> {
    let id = match qdev.strip_prefix("/machine/peripheral/") {
        Some(rest) => rest.strip_suffix("/virtio-backend").unwrap_or(rest),
        None if qdev.starts_with('/') => "",
        None => qdev,
    };
    let lasting = |name: &&str| !name.is_empty() && !name.starts_with('#') && !is_counted(name);
    let own = if id.is_empty() { [drive, node].into_iter().find(lasting)? } else { id };
    DiskKey::parse(own).ok()
}

/// Whether QEMU may have named a drive by its place among others: `virtio0`, `ide0-hd1`.
fn is_counted(name: &str) -> bool {
    let digits = |text: &str| text.trim_start_matches(|c: char| c.is_ascii_digit()).to_owned();
    let interfaces = ["ide", "scsi", "virtio", "floppy", "pflash", "mtd", "sd", "xen", "none"];
    let places = interfaces.iter().filter_map(|interface| name.strip_prefix(interface));
    places.map(digits).any(|rest| match rest.strip_prefix("-hd").or(rest.strip_prefix("-cd")) {
        Some(place) => digits(place).is_empty(),
        None => rest.is_empty(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flash_is_firmware_however_it_was_named_and_a_disk_is_not() {
        for (device, drive) in
            [("pflash1", "pflash1"), ("/machine/system.flash1", ""), ("/machine/virt.flash0", "")]
        {
            assert!(is_firmware(device, drive), "{device}");
        }
        for (device, drive) in [
            ("/machine/peripheral/my.flash0/virtio-backend", ""),
            ("/machine/peripheral-anon/device[1]", "drive0"),
            ("my.flash0", ""),
            ("/machine/unattached/device[3]", ""),
        ] {
            assert!(!is_firmware(device, drive), "{device}");
        }
    }

    #[test]
    fn l04_keys_are_names_that_last() {
        let text = |qdev, drive, node| key(qdev, drive, node).map(|key| key.to_string());
        let some = |name: &str| Some(name.to_owned());
        assert_eq!(text("/machine/peripheral/disk0/virtio-backend", "", "n"), some("disk0"));
        assert_eq!(text("/machine/peripheral/disk0", "d", "n"), some("disk0"));
        assert_eq!(text("scsi0-0-0-1", "", "n"), some("scsi0-0-0-1"));
        assert_eq!(text("/machine/peripheral-anon/device[1]", "drive0", "n"), some("drive0"));
        assert_eq!(text("/machine/peripheral-anon/device[1]", "", "n"), some("n"));
        assert_eq!(text("/machine/peripheral-anon/device[1]", "", "#block123"), None);
        assert_eq!(text("/machine/peripheral/virtio0/virtio-backend", "", "n"), some("virtio0"));
        for counted in ["virtio0", "ide0-hd1", "scsi1-hd12", "sd0", "none3"] {
            assert_eq!(text("/machine/peripheral-anon/device[1]", counted, "#block123"), None, "{counted}");
        }
        for own in ["drive0", "ide0-data", "sda", "virtual0", "scsi0-hd1-new"] {
            assert_eq!(text("/machine/peripheral-anon/device[1]", own, "#block123"), some(own));
        }
    }
}
