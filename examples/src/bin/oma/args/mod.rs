//! The command line: names, flags and what `--help` teaches.

mod accounts;
mod certificates;
mod cleanup;
mod db;
mod disks;
mod jobs;
mod logs;
mod points;
mod precedence;
mod remote;
mod serve;
mod volumes;

use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand};
use oma_core::seal::PublicKey;
use oma_core::{ByteSize, ChangeId, DiskKey, JobId, VmPath};

pub(crate) use self::accounts::{
    AddUserArgs, AuditArgs, AuditCommand, ChangeUserArgs, ListTrailArgs, TokenArgs, TokensArgs, UsersArgs,
    UsersCommand,
};
pub(crate) use self::certificates::{CertificateArgs, CertificateCommand, MakeCertificateArgs, TrustArgs};
pub(crate) use self::cleanup::CleanupArgs;
pub(crate) use self::db::{DbArgs, DbCommand};
pub(crate) use self::disks::MachineArgs;
pub(crate) use self::disks::ReflinkArg;
use self::disks::{DiskArgs, ProvisioningArg, REFLINK, SOURCE, list};
pub(crate) use self::jobs::JobsArgs;
pub(crate) use self::logs::LogsArgs;
use self::points::KeepArgs;
pub(crate) use self::points::{ListArgs, PointArgs, PointsArgs, PointsCommand};
pub(crate) use self::remote::{RemoteArgs, SteerArgs};
pub(crate) use self::serve::ServeArgs;
pub(crate) use self::volumes::{
    AbandonArgs, ChangeArgs, DeleteArgs, OperationsArgs, VolumesArgs, VolumesCommand,
};
use oma_api::NamedDisk;
use oma_api::{TrustWanted, VerifyWanted};
use oma_examples::exit;

/// Replicates disks of virtual machines: once in full, then only what changed
#[derive(Debug, Parser)]
#[command(name = "oma", version, max_term_width = 100, after_long_help = exit::HELP)]
pub(crate) struct Cli {
    /// Where the database and the volumes lie; made when it is not there
    #[arg(long, global = true, env = "OMA_DATA_DIR", default_value = "./oma-data", value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// Print the result as JSON, one line on standard output; progress goes to standard error
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show a whole replication on a disk made for it
    Demo(DemoArgs),
    /// Bring the volumes of a VM to what its disks are now
    Replicate(ReplicateArgs),
    /// Copy one disk to a file, a block device or an NBD export, without records
    Copy(CopyArgs),
    /// Compare the disks of a VM with their volumes, or check a report of that
    Verify(VerifyArgs),
    /// Print the verification report of a job
    Report(ReportArgs),
    /// Print the public key that verification reports of this data directory are signed with
    Key,
    /// List replication jobs, newest first
    Jobs(JobsArgs),
    /// Print the log of a job, or its steps
    Logs(LogsArgs),
    /// List disks, their volumes and how far they are
    Disks,
    /// Print the change id of the last committed epoch
    ChangeId(ChangeIdArgs),
    /// Tell what the next epoch and a cutover of a VM will cost, from the epochs before
    Forecast(ForecastArgs),
    /// List recovery points, delete one, or go back to one
    Points(PointsArgs),
    /// List volumes and what was asked of them, or change a single one
    Volumes(VolumesArgs),
    /// End a job that was interrupted and is not to be continued
    Cancel(CancelArgs),
    /// Let a job of the appliance rest until it is resumed
    Pause(SteerArgs),
    /// Let a job of the appliance that rests go on
    Resume(SteerArgs),
    /// Attempt a job of the appliance at once; of one that has ended, begin another one that is asked for the same
    Retry(SteerArgs),
    /// Plan what is removed of a job that failed or was cancelled, and remove it
    Cleanup(CleanupArgs),
    /// Export a file or block device over NBD until a signal
    Serve(ServeArgs),
    /// Look at the database, migrate it, check it, move it to another engine
    Db(DbArgs),
    /// List users, add and change them, make and revoke their tokens
    Users(UsersArgs),
    /// Verify the audit trail, or list its entries
    Audit(AuditArgs),
    /// Make certificates by which clients may connect to NBD of the daemon of this data directory, list and revoke them
    Certificate(CertificateArgs),
    /// Trust the authority that the appliance of --api shows, once its fingerprint is found to be right
    Trust(TrustArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
}

/// Makes a disk of data, holes and zeroes, serves it over NBD, replicates it in full, changes it, replicates the
/// changes by a dirty bitmap, and compares every byte both times.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Leave the disk, the database and the volumes in place and tell where they are
    #[arg(long)]
    pub(crate) keep: bool,
    /// Size of the disk, from 64MiB
    #[arg(long, default_value = "512MiB", value_name = "SIZE")]
    pub(crate) size: ByteSize,
}

const DISTRUST: &str =
    "Read what the source says is zero or a hole, too; for a source whose word cannot be trusted";
const MEMORY_HELP: &str = "Data on its way takes at most so much memory";
const LIMITS: &str =
    "Limits of hosts, datastores and the link, for copies and comparisons, as JSON: see docs/limits.md";

const REPLICATE_HELP: &str = "\
Examples:
  A file or a block device. Everything is copied, holes and zeroes excepted:
    oma replicate --vm-path /DC/vm/web01 --source /dev/vg0/web01

  A qcow2 image, in full. Its bitmap is made first, so that it gathers every later change:
    qemu-img bitmap --add web01.qcow2 b0
    qemu-nbd -r -t -e 0 -k /run/web01.sock -f qcow2 -B b0 web01.qcow2 &
    oma replicate --vm-path /DC/vm/web01 \\
        --source 'nbd+unix:///?socket=/run/web01.sock' --change-id b0

  Later, only what the bitmap has gathered:
    oma replicate --vm-path /DC/vm/web01 \\
        --source 'nbd+unix:///?socket=/run/web01.sock' --bitmap b0 --change-id b1

  Two disks, committed together or not at all:
    oma replicate --vm-path /DC/vm/db01 \\
        --disk 'disk-2000=nbd://host/db01-0,bitmap=b0' --disk disk-2001=/dev/vg0/db01-1

  A running QEMU machine, the same command each time:
    oma replicate --vm-path /DC/vm/web02 --qmp /run/web02.qmp --guest-agent /run/web02.qga

Any other source must not be written while it is copied: stop the VM, or export a snapshot.
A run that was interrupted or killed is continued by the same command; name another
--change-id when an NBD export has other content than before.
The exit codes stand in `oma --help`.";

#[derive(Debug, Args)]
#[command(after_help = REPLICATE_HELP)]
pub(crate) struct ReplicateArgs {
    #[command(flatten)]
    pub(crate) disks: DiskArgs,
    /// The machine of --qmp was renamed: --vm-path is its path from now on. Without it, one that is known by another path is refused
    #[arg(long, requires = "qmp")]
    pub(crate) rename: bool,
    #[arg(long, default_value = "none", value_name = "LEVEL", help = LEVEL)]
    pub(crate) verify: VerifyWanted,
    /// How far the source is believed when it says what changed: yes; spot-check[=N/1000], so many leaves of what is said to be
    /// unchanged are compared; no, all is compared
    #[arg(long, default_value = "yes", value_name = "HOW")]
    pub(crate) trust_changes: TrustWanted,
    /// When the space of new volumes is allocated
    #[arg(long, value_enum, default_value = "thin", value_name = "WHEN")]
    pub(crate) provisioning: ProvisioningArg,
    /// At most so much of each disk is copied twice after a crash; 1MiB at least
    #[arg(long, default_value = "256MiB", value_name = "SIZE", value_parser = journal_step)]
    pub(crate) journal_step: ByteSize,
    #[arg(long, help = DISTRUST)]
    pub(crate) distrust_zeroes: bool,
    #[arg(long, default_value = "128MiB", value_name = "SIZE", help = MEMORY_HELP)]
    pub(crate) memory: ByteSize,
    #[arg(long, value_enum, default_value = "auto", value_name = "WHEN", help = REFLINK)]
    pub(crate) reflink: ReflinkArg,
    #[command(flatten)]
    pub(crate) points: KeepArgs,
    /// Only ask for it: the appliance goes on, and `oma jobs` tells how it stands
    #[arg(long, conflicts_with = "embedded")]
    pub(crate) detach: bool,
    #[arg(long, value_name = "FILE", help = LIMITS)]
    pub(crate) limits: Option<PathBuf>,
    /// Write the run as Prometheus metrics, for a textfile collector, meanwhile too: the file is replaced at once, so each VM and
    /// each command needs its own
    #[arg(long, value_name = "FILE")]
    pub(crate) metrics: Option<PathBuf>,
}

/// How much memory a run on a data directory takes where nothing is said.
pub(crate) const MEMORY: ByteSize = ByteSize::mib(128);
/// How much is copied twice after a crash where nothing is said.
pub(crate) const JOURNAL_STEP: ByteSize = ByteSize::mib(256);

/// Below it, a disk is flushed and written down more than copied.
const LEAST_STEP: ByteSize = ByteSize::mib(1);

fn journal_step(text: &str) -> Result<ByteSize, String> {
    let step: ByteSize = text.parse().map_err(|error: <ByteSize as FromStr>::Err| error.to_string())?;
    if step < LEAST_STEP { Err(format!("it is at least {LEAST_STEP}")) } else { Ok(step) }
}

const FORECAST_HELP: &str = "\
Example:
    oma forecast --vm-path /DC/vm/web01

It needs two incremental epochs. The stand-still is one incremental epoch of what changes while the one before it runs;
the boot of the VM in its new place comes on top.";

#[derive(Debug, Args)]
#[command(after_help = FORECAST_HELP)]
pub(crate) struct ForecastArgs {
    /// Inventory path of the VM
    #[arg(long, value_name = "/DC/vm/NAME")]
    pub(crate) vm_path: VmPath,
    /// Write the forecast as Prometheus metrics, for a textfile collector: the file is replaced at once, so each VM and each
    /// command needs its own
    #[arg(long, value_name = "FILE")]
    pub(crate) metrics: Option<PathBuf>,
}

const COPY_HELP: &str = "\
Examples:
    oma copy /dev/vg0/web01 web01.raw
    oma copy /dev/vg0/web01 'nbds://cloud.example/web01?tls-certificates=/etc/oma/tls'
    oma copy 'nbd+unix:///?socket=/run/web01.sock' /dev/vg1/web01

  One that goes on after it was interrupted or killed, by the same command:
    oma copy --journal web01.journal --change-id snap1 /dev/vg0/web01-snap1 nbds://cloud.example/web01

  A target that holds an older copy, of which only hashes cross the link where both ends can hash:
    oma copy --repair --verify full /dev/vg0/web01-snap2 nbds://cloud.example/web01

Without --journal an interrupted copy begins again. A file that is not there is made; one that holds data is
not written over without --overwrite. See docs/copy.md.
The exit code is 0 when all of the source is on stable storage at the target.";

#[derive(Debug, Args)]
#[command(after_help = COPY_HELP)]
pub(crate) struct CopyArgs {
    /// What is read: a raw file, a block device or the URI of an NBD export
    #[arg(value_name = "SOURCE", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) source: String,
    /// What is written, at least as large: a raw file, a block device or the URI of an NBD export
    #[arg(value_name = "TARGET", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) target: String,
    /// Only the extents in a file: one a line, offset and length in bytes
    #[arg(long, value_name = "FILE")]
    pub(crate) extents: Option<PathBuf>,
    /// Write over a file that holds data
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// The target holds an older copy, or a broken one: hashes are compared, and only what differs is copied
    #[arg(long, conflicts_with = "blank")]
    pub(crate) repair: bool,
    /// What is compared with the source before the copy is called complete: none, sample[=COUNT|=N/1000] of leaves of 64 KiB chosen
    /// at random, changed (what was copied), full
    #[arg(long, default_value = "none", value_name = "LEVEL")]
    pub(crate) verify: VerifyWanted,
    /// The target reads as zero everywhere: zeroes are left out
    #[arg(long)]
    pub(crate) blank: bool,
    /// Note what is durable in a file, removed when the copy is complete: the same command goes on with it
    #[arg(long, value_name = "FILE")]
    pub(crate) journal: Option<PathBuf>,
    /// Names the content of the source for the journal; a block device needs it, and an export that may change
    #[arg(long, value_name = "ID", requires = "journal")]
    pub(crate) change_id: Option<ChangeId>,
    /// At most so much is copied twice after a crash; 1MiB at least
    #[arg(long, default_value = "256MiB", value_name = "SIZE", requires = "journal", value_parser = journal_step)]
    pub(crate) journal_step: ByteSize,
    /// At most so much a second
    #[arg(long, value_name = "SIZE")]
    pub(crate) bandwidth: Option<ByteSize>,
    #[arg(long, value_enum, default_value = "auto", value_name = "WHEN", help = REFLINK)]
    pub(crate) reflink: ReflinkArg,
    #[arg(long, default_value = "128MiB", value_name = "SIZE", help = MEMORY_HELP)]
    pub(crate) memory: ByteSize,
    #[arg(long, help = DISTRUST)]
    pub(crate) distrust_zeroes: bool,
}

impl CopyArgs {
    /// The source as one disk.
    pub(crate) fn disk(&self) -> NamedDisk {
        let key = DiskKey::parse("disk").expect("it is a key");
        NamedDisk { key, source: self.source.clone(), bitmap: None, change_id: self.change_id.clone() }
    }
}

const LEVEL: &str = "What is compared with the source before the epoch is committed: none, \
    sample[=COUNT|=N/1000] of leaves of 64 KiB chosen at random, changed, full";

const VERIFY_HELP: &str = "\
Examples:
    oma verify --vm-path /DC/vm/web01 --source /dev/vg0/web01 --save report.json
    oma verify --vm-path /DC/vm/web01 --source /dev/vg0/web01 --level sample=20/1000

Nothing is changed. Each extent that differs is named, in units of 4 KiB, and the exit
code is 3. A source that was written since its last epoch differs, rightly.
--bitmap and --change-id have no effect here.

A report is checked anywhere, without the appliance that made it:
    oma verify --report report.json --public-key KEY --source web01.raw --volume copy.raw
KEY is what `oma key` printed there; without it, the key of this data directory. The exit
code is 8 for a report that was changed or cut, 2 for one of another version, 1 for one
that another key signed, 3 when it tells of differences or a file has another root.";

#[derive(Debug, Args)]
#[command(after_help = VERIFY_HELP)]
pub(crate) struct VerifyArgs {
    /// Inventory path of the VM
    #[arg(long, value_name = "/DC/vm/NAME", required_unless_present = "report")]
    pub(crate) vm_path: Option<VmPath>,
    #[arg(long, value_name = "URI|FILE", required_unless_present_any = ["disk", "qmp", "report"], conflicts_with = "disk")]
    #[arg(help = SOURCE, value_parser = NonEmptyStringValueParser::new())]
    pub(crate) source: Option<String>,
    /// Key of that disk within the VM
    #[arg(long, value_name = "KEY", default_value = "disk-2000", conflicts_with = "disk")]
    pub(crate) disk_key: DiskKey,
    #[arg(long, hide = true, conflicts_with = "disk")]
    bitmap: Option<String>,
    #[arg(long, hide = true, conflicts_with = "disk")]
    change_id: Option<ChangeId>,
    /// A disk of a VM that has several; once per disk, as with `oma replicate`
    #[arg(long, value_name = "KEY=SOURCE", conflicts_with = "report")]
    disk: Vec<NamedDisk>,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    /// What is compared: full, or sample[=COUNT|=N/1000] of leaves of 64 KiB chosen at random
    #[arg(long, default_value = "full", value_name = "LEVEL", conflicts_with = "report")]
    pub(crate) level: VerifyWanted,
    #[arg(long, conflicts_with = "report", help = DISTRUST)]
    pub(crate) distrust_zeroes: bool,
    #[arg(long, default_value = "128MiB", value_name = "SIZE", conflicts_with = "report", help = MEMORY_HELP)]
    pub(crate) memory: ByteSize,
    #[arg(long, value_name = "FILE", conflicts_with = "report", help = LIMITS)]
    pub(crate) limits: Option<PathBuf>,
    /// Write the signed report to a file that is not there yet
    #[arg(long, value_name = "FILE", conflicts_with = "report")]
    pub(crate) save: Option<PathBuf>,
    /// Check this report, in place of comparing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["vm_path", "qmp"])]
    pub(crate) report: Option<PathBuf>,
    /// The key that the report must be signed with
    #[arg(long, value_name = "KEY", conflicts_with = "vm_path")]
    pub(crate) public_key: Option<PublicKey>,
    /// A file or block device whose root must be that of the volume in the report; --source names one for the source
    #[arg(long, value_name = "FILE", conflicts_with = "vm_path")]
    pub(crate) volume: Option<PathBuf>,
}

impl VerifyArgs {
    /// The disks, however they were named.
    pub(crate) fn list(&self) -> Vec<NamedDisk> {
        list(self.source.as_deref(), &self.disk_key, (&self.bitmap, &self.change_id), &self.disk)
    }
}

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// The job, as `oma jobs` lists it
    #[arg(value_name = "JOB")]
    pub(crate) job: JobId,
    /// Write the signed report to a file that is not there yet
    #[arg(long, value_name = "FILE")]
    pub(crate) save: Option<PathBuf>,
}

const CHANGE_ID_HELP: &str = "\
Prints the id alone when the VM has one disk or --disk-key names one, else a line
`KEY<tab>ID` for each disk. With --json an object with --disk-key, else an array.
Example, in a script:
    since=$(oma change-id --vm-path /DC/vm/web01)";

#[derive(Debug, Args)]
#[command(after_help = CHANGE_ID_HELP)]
pub(crate) struct ChangeIdArgs {
    /// Inventory path of the VM
    #[arg(long, value_name = "/DC/vm/NAME")]
    pub(crate) vm_path: VmPath,
    /// Only this disk
    #[arg(long, value_name = "KEY")]
    pub(crate) disk_key: Option<DiskKey>,
}

#[derive(Debug, Args)]
pub(crate) struct CancelArgs {
    /// The job, as `oma jobs` lists it
    #[arg(value_name = "JOB")]
    pub(crate) job: JobId,
    /// The monitor of the running QEMU machine that the job is of: what it has left there goes too
    #[arg(long, value_name = "SOCKET")]
    pub(crate) qmp: Option<PathBuf>,
    /// The guest agent of that machine: a guest that the job has left frozen is thawed
    #[arg(long, value_name = "SOCKET", requires = "qmp")]
    pub(crate) guest_agent: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_report_is_checked_or_disks_are_compared_but_not_both() {
        let parse = |args: &[&str]| {
            Cli::try_parse_from(["oma", "verify"].iter().chain(args).copied().collect::<Vec<_>>())
        };
        assert!(parse(&["--vm-path", "/DC/vm/a", "--source", "a.raw", "--level", "sample"]).is_ok());
        assert!(parse(&["--report", "r.json"]).is_ok());
        assert!(parse(&["--report", "r.json", "--source", "a.raw", "--volume", "b.raw"]).is_ok());
        for wrong in [
            &["--vm-path", "/DC/vm/a"][..],
            &["--source", "a.raw"],
            &["--report", "r.json", "--vm-path", "/DC/vm/a"],
            &["--report", "r.json", "--level", "full"],
            &["--report", "r.json", "--save", "s.json"],
            &["--vm-path", "/DC/vm/a", "--source", "a.raw", "--volume", "b.raw"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn one_disk_or_several_but_not_both() {
        let parse = |args: &[&str]| {
            let line = ["oma", "replicate", "--vm-path", "/DC/vm/a"].iter().chain(args).copied();
            Cli::try_parse_from(line.collect::<Vec<_>>())
        };
        assert!(parse(&["--source", "a.raw"]).is_ok());
        assert!(parse(&["--disk", "a=a.raw", "--disk", "b=b.raw,bitmap=b0"]).is_ok());
        assert!(parse(&[]).is_err());
        assert!(parse(&["--source", "a.raw", "--disk", "b=b.raw"]).is_err());
        assert!(parse(&["--disk", "b=b.raw", "--bitmap", "b0"]).is_err());
        assert!(parse(&["--qmp", "a.qmp", "--guest-agent", "a.qga"]).is_ok());
        assert!(parse(&["--qmp", "a.qmp", "--source", "a.raw"]).is_err());
        assert!(parse(&["--qmp", "a.qmp", "--change-id", "b0"]).is_err());
        assert!(parse(&["--source", "a.raw", "--guest-agent", "a.qga"]).is_err());
    }

    #[test]
    fn what_is_not_said_of_a_run_is_what_an_appliance_takes_for_not_said() {
        let line = ["oma", "replicate", "--vm-path", "/DC/vm/web01", "--source", "web01.raw"];
        let Command::Replicate(args) = Cli::read(line).unwrap().command else {
            panic!("it is another command")
        };
        assert_eq!((args.memory, args.journal_step), (MEMORY, JOURNAL_STEP));
    }
}
