//! The commands: a table of names and parameters, what is checked before any of them runs, and the way through.

mod attach;
mod capabilities;
mod discovery;
mod jobs;
mod listing;
mod machine_snapshots;
mod machines;
mod projects;
mod removal;
mod resize;
mod snapshots;
mod tags;
mod volumes;
mod zones;

use serde_json::Value;
use uuid::Uuid;

use super::answer::Reply;
use super::error::ApiError;
use super::jobs::Submission;
use super::model::{Kind, Role, VolumeState};
use super::params::{Params, parse_uuid};
use super::world::{Caller, World};

/// A call that was let in.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) caller: Caller,
    pub(crate) params: Params,
}

pub(crate) use attach::put;

type Answered = Result<Reply, ApiError>;
type Outcome = Result<Value, ApiError>;

/// What a command does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Body {
    /// At once.
    Sync(fn(&mut World, &Call) -> Answered),
    /// As a job. `target` finds what it is about; what it refuses fails the job, what the caller may not do fails the call.
    Async { target: fn(&World, &Call) -> Result<Target, ApiError>, run: fn(&mut World, &Call) -> Outcome },
    /// A row at once, a job for the rest.
    Create {
        make: fn(&mut World, &Call) -> Result<Target, ApiError>,
        run: fn(&mut World, &Call, Uuid) -> Outcome,
    },
}

/// What a job is about, and in which machine's queue it goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) kind: &'static str,
    pub(crate) id: Uuid,
    pub(crate) queue: Option<Uuid>,
    /// The volume whose state shows that the job is at work.
    pub(crate) volume: Option<Uuid>,
}

impl Target {
    fn new(kind: &'static str, id: Uuid, queue: Option<Uuid>) -> Self {
        Self { kind, id, queue, volume: None }
    }

    fn showing(self, volume: Uuid) -> Self {
        Self { volume: Some(volume), ..self }
    }
}

/// Type of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Boolean,
    List,
    Long,
    Map,
    /// A project, or -1 for all.
    Project,
    Text,
    Uuid(Kind),
    Uuids(Kind),
}

/// A parameter that a command knows. Others are ignored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Param {
    pub(crate) name: &'static str,
    pub(crate) of: Type,
    pub(crate) required: bool,
    pub(crate) since: Option<&'static str>,
}

const fn param(name: &'static str, of: Type) -> Param {
    Param { name, of, required: false, since: None }
}

const fn text(name: &'static str) -> Param {
    param(name, Type::Text)
}

const fn uuid(name: &'static str, kind: Kind) -> Param {
    param(name, Type::Uuid(kind))
}

impl Param {
    const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    const fn since(self, version: &'static str) -> Self {
        Self { since: Some(version), ..self }
    }
}

/// Every list that comes in pages has them.
const PAGING: &[Param] = &[text("keyword"), param("page", Type::Long), param("pagesize", Type::Long)];

#[derive(Clone, Copy, Debug)]
pub(crate) struct Command {
    pub(crate) name: &'static str,
    /// The end of its Java class' name, which `cmd` of a job tells.
    pub(crate) class: &'static str,
    pub(crate) body: Body,
    pub(crate) params: &'static [Param],
    /// The state that a volume is in while the job of this command is at work on it.
    pub(crate) transition: Option<VolumeState>,
}

impl Command {
    const fn new(name: &'static str, class: &'static str, body: Body, params: &'static [Param]) -> Self {
        Self { name, class, body, params, transition: None }
    }

    pub(crate) fn java_class(&self) -> String {
        format!("org.apache.cloudstack.api.command.{}", self.class)
    }

    fn is_paged(&self) -> bool {
        self.name.starts_with("list") && !["listApis", "listCapabilities"].contains(&self.name)
    }

    /// The parameters that a version of the server knows.
    pub(crate) fn known_params(&self, version: &'static str) -> impl Iterator<Item = &'static Param> {
        let all = self.params.iter().chain(if self.is_paged() { PAGING } else { &[] });
        all.filter(move |param| param.since.is_none_or(|since| numbers(since) <= numbers(version)))
    }

    /// The key of its answers.
    pub(crate) fn response_key(&self) -> String {
        format!("{}response", self.name.to_lowercase())
    }

    /// Whether the option "POST only" lets it come by GET.
    pub(crate) fn only_reads(&self) -> bool {
        let rest = ["get", "list", "query", "find"].iter().find_map(|verb| self.name.strip_prefix(verb));
        rest.is_some_and(|rest| !rest.is_empty())
    }
}

/// All commands.
pub(crate) fn all() -> impl Iterator<Item = &'static Command> {
    let tables = [
        attach::COMMANDS,
        capabilities::COMMANDS,
        discovery::COMMANDS,
        jobs::COMMANDS,
        machine_snapshots::COMMANDS,
        machines::COMMANDS,
        projects::COMMANDS,
        removal::COMMANDS,
        resize::COMMANDS,
        snapshots::COMMANDS,
        tags::COMMANDS,
        volumes::COMMANDS,
        zones::COMMANDS,
    ];
    tables.into_iter().flatten()
}

/// A command by its exact name.
pub(crate) fn find(name: &str) -> Option<&'static Command> {
    all().find(|command| command.name == name)
}

/// The numbers of a version, so that 4.9 is before 4.20.
fn numbers(version: &str) -> Vec<u32> {
    version.split('.').filter_map(|number| number.parse().ok()).collect()
}

/// Checks the parameters, then runs the command or records its job.
pub(crate) fn dispatch(world: &mut World, command: &'static Command, mut call: Call) -> Answered {
    let version = world.options.version;
    let later = |name: &str| {
        let is_this = |param: &&Param| param.name.eq_ignore_ascii_case(name);
        command.params.iter().any(|param| is_this(&param))
            && !command.known_params(version).any(|param| is_this(&param))
    };
    call.params.forget(later);
    check(world, command, &call.params)?;
    listing::check_project(world, &call)?;
    match command.body {
        Body::Sync(run) => run(world, &call),
        Body::Async { target, .. } => {
            let found = target(world, &call);
            if let Err(error) = &found
                && error.code == 531
            {
                return Err(error.clone());
            }
            let (target, refused) =
                found.map_or_else(|error| (None, Some(error)), |found| (Some(found), None));
            submit(world, command, call, target, refused).map(Reply::Job)
        }
        Body::Create { make, .. } => {
            let target = make(world, &call)?;
            let job = submit(world, command, call, Some(target), None)?;
            Ok(Reply::Created { id: target.id, job })
        }
    }
}

fn submit(
    world: &mut World,
    command: &'static Command,
    call: Call,
    target: Option<Target>,
    refused: Option<ApiError>,
) -> Result<Uuid, ApiError> {
    world.submit(Submission { command, call, target, refused })
}

fn check(world: &World, command: &Command, params: &Params) -> Result<(), ApiError> {
    for (name, value) in params.iter() {
        if value.chars().any(|sign| sign.is_ascii_control()) {
            let text = format!(
                "Received value {value:?} for parameter {name} is invalid, contains illegal ASCII non-printable characters"
            );
            return Err(ApiError::malformed(text));
        }
    }
    for param in command.known_params(world.options.version) {
        check_param(world, command, param, params)?;
    }
    Ok(())
}

fn check_param(world: &World, command: &Command, param: &Param, params: &Params) -> Result<(), ApiError> {
    let (name, begin) =
        (param.name, format!("Unable to execute API command {}", command.name.to_lowercase()));
    let given = params.text(name);
    let present = given.is_some() || param.of == Type::Map && params.has_map(name);
    if param.required && !present {
        return Err(ApiError::malformed(format!("{begin} due to missing parameter {name}")));
    }
    let Some(value) = given else { return Ok(()) };
    let invalid = |why: String| ApiError::malformed(format!("{begin} due to invalid value. {why}"));
    let unknown = |id: &str| {
        invalid(format!(
            "Invalid parameter {name} value={id} due to incorrect long value format, or entity does not exist or due \
             to incorrect parameter annotation for the field in api cmd class."
        ))
    };
    let exists = |kind, id: &str| parse_uuid(id).is_some_and(|id| world.has(kind, id));
    match param.of {
        Type::Text if value.chars().count() > 255 => {
            Err(invalid(format!("Value greater than max allowed length 255 for param: {name}")))
        }
        Type::Long if value.parse::<i64>().is_err() => {
            Err(invalid(format!("Invalid parameter {name} value={value}, it has to be a number")))
        }
        // One that is empty counts as not given.
        Type::Uuid(kind) if (param.required || !value.is_empty()) && !exists(kind, value) => {
            Err(unknown(value))
        }
        Type::Project if !value.is_empty() && value != "-1" && !exists(Kind::Project, value) => {
            Err(unknown(value))
        }
        Type::Uuids(kind) => {
            let list = params.list(name).unwrap_or_default();
            list.into_iter().find(|id| !exists(kind, id)).map_or(Ok(()), |id| Err(unknown(id)))
        }
        Type::Map => {
            Err(ApiError::malformed(format!("The parameter {name} needs the form {name}[0].key"))
                .with_code(430))
        }
        Type::Boolean | Type::List | Type::Long | Type::Project | Type::Text | Type::Uuid(_) => Ok(()),
    }
}

/// Who runs what an administrator of the fake does by hand.
pub(crate) fn root(world: &World) -> Caller {
    let admin = world.accounts.iter().find(|account| account.role == Role::RootAdmin);
    Caller { account: admin.expect("there is one").id, role: Role::RootAdmin }
}
