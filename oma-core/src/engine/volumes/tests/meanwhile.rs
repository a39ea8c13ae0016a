//! What others do, and what becomes of volumes, while somebody looks.

use std::collections::HashMap;
use std::fmt;
use std::sync::Mutex;

use futures_util::future::BoxFuture;

use crate::VolumeId;
use crate::traits::Volume;

/// What somebody else does while the backend lists snapshots, once.
#[derive(Default)]
pub(in crate::engine) struct Meanwhile(Mutex<Option<(usize, BoxFuture<'static, ()>)>>);

impl fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meanwhile")
    }
}

impl Meanwhile {
    /// After so many more lists.
    pub(in crate::engine) fn after(&self, lists: usize, what: impl Future<Output = ()> + Send + 'static) {
        *self.0.lock().unwrap() = Some((lists, Box::pin(what)));
    }

    pub(super) async fn happens(&self) {
        let what = {
            let mut left = self.0.lock().unwrap();
            match left.take() {
                Some((0, what)) => Some(what),
                Some((lists, what)) => {
                    *left = Some((lists - 1, what));
                    None
                }
                None => None,
            }
        };
        if let Some(what) = what {
            what.await;
        }
    }
}

/// How a volume looks that is in the backend as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Looks {
    /// As if it were not there.
    Absent,
    /// There, without its mark, and so in no list of ours.
    Unmarked,
}

/// Volumes that look otherwise than they are.
#[derive(Debug, Default)]
pub(in crate::engine) struct Disguises(Mutex<HashMap<VolumeId, Looks>>);

impl Disguises {
    pub(in crate::engine) fn set(&self, id: &VolumeId, looks: Looks) {
        self.0.lock().unwrap().insert(id.clone(), looks);
    }

    pub(super) fn of(&self, volume: Volume) -> Option<Volume> {
        match self.0.lock().unwrap().get(&volume.id) {
            None => Some(volume),
            Some(Looks::Absent) => None,
            Some(Looks::Unmarked) => Some(Volume { tag: None, ..volume }),
        }
    }
}
