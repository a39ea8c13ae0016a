//! Who a daemon is among the workers of its database.

use std::fs::{self, File};
use std::io::Write as _;

use oma_core::traits::VolumeRegistry as _;
use oma_core::{Error, ErrorKind, InstanceId, Result, WorkerId};
use oma_store::SqlStore;

use crate::data_dir::DataDir;
use crate::database::Database;
use crate::failure::{io_error, read_error};

/// Who changes volumes here: the same after each start. A database of the data directory's own knows it as the command line does; in
/// one that other machines use as well, each data directory is a worker of its own.
pub(super) async fn worker_name(data: &DataDir, database: &Database, store: &SqlStore) -> Result<WorkerId> {
    let name = match database.data {
        Some(_) => format!("oma-{}", store.instance().await?),
        None => kept_name(data)?,
    };
    WorkerId::parse(name.trim()).map_err(|error| {
        Error::new(ErrorKind::Corrupt, "read", data.worker().display())
            .because(format!("{error}; remove the file"))
    })
}

fn kept_name(data: &DataDir) -> Result<String> {
    let path = data.worker();
    match fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let name = format!("volumed-{}", InstanceId::mint());
            let beside = path.with_extension("new");
            // Durable before anything bears it: what it leaves is finished by a worker of this name only.
            let written = File::create(&beside).and_then(|mut file| {
                file.write_all(name.as_bytes())?;
                file.sync_all()?;
                fs::rename(&beside, &path)?;
                path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
            });
            written.map(|()| name).map_err(|error| io_error("write", path.display(), error))
        }
        read => read.map_err(|error| read_error("read", path.display(), error)),
    }
}
