//! Guest agents that answer, refuse, lie and hang.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use oma_core::ErrorKind;
use oma_core::conformance::{Trial, trial};
use oma_core::traits::DiskSource;
use oma_nbd::QemuSource;
use oma_nbd::qemu::QemuConfig;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::machine::{Machine, NEEDS, freeze, job, point, read, vm};
use crate::proxy::{Proxy, Trouble};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        &NEEDS;
        the_guest_is_frozen_around_the_point_in_time,
        a_guest_that_does_not_run_is_not_asked,
        a_guest_that_refuses_is_thawed_and_nothing_is_left,
        a_guest_that_hangs_in_the_freeze_is_thawed_and_nothing_is_left,
        a_guest_that_never_answers_is_told_in_time,
        a_guest_that_is_thawed_only_later_is_asked_again,
        a_guest_that_somebody_else_froze_is_left_alone,
        a_guest_that_an_interrupted_freeze_left_frozen_is_thawed,
        a_guest_left_frozen_is_thawed_once_its_agent_answers_again,
        a_release_thaws_the_guest_that_an_interrupted_freeze_left_frozen,
        a_guest_that_could_not_be_thawed_is_not_forgotten,
        a_freeze_that_is_dropped_thaws_the_guest,
        left_over_bytes_of_another_client_do_no_harm,
    ]
}

/// How an agent behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Good,
    RefusesFreeze,
    HangsInFreeze,
    Mute,
    ThawsAtTheSecondTime,
    FrozenByOther,
    LeftFrozen,
    RefusesThaw,
    Chatters,
}

/// An agent without a guest, and what it was told.
#[derive(Debug)]
struct Agent {
    socket: PathBuf,
    told: Arc<Mutex<Vec<String>>>,
    grows: watch::Receiver<usize>,
    _serving: JoinSet<()>,
}

impl Agent {
    fn start(machine: &Machine, manner: Manner) -> Self {
        let socket = machine.socket("agent");
        let listener = UnixListener::bind(&socket).unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let (grow, grows) = watch::channel(0);
        let mut serving = JoinSet::new();
        let log = Arc::clone(&told);
        serving.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serve(stream, manner, &log, &grow).await;
            }
        });
        Self { socket, told, grows, _serving: serving }
    }

    fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().iter().filter(|command| command.contains("fsfreeze")).cloned().collect()
    }

    async fn waits_for(&mut self, command: &str) {
        let told = Arc::clone(&self.told);
        let heard = |_: &usize| told.lock().unwrap().iter().any(|other| other == command);
        timeout(Duration::from_secs(60), self.grows.wait_for(heard)).await.unwrap().unwrap();
    }
}

async fn serve(stream: UnixStream, manner: Manner, told: &Mutex<Vec<String>>, grow: &watch::Sender<usize>) {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    while matches!(stream.read_until(b'\n', &mut line).await, Ok(length) if length > 0) {
        let text = line.iter().position(|byte| *byte == b'{').map_or(&line[..], |at| &line[at..]);
        let ask: Value = serde_json::from_slice(text).unwrap();
        let command = ask["execute"].as_str().unwrap().to_owned();
        let thaws = {
            let mut told = told.lock().unwrap();
            told.push(command.clone());
            told.iter().filter(|other| *other == THAW).count()
        };
        grow.send_modify(|count| *count += 1);
        if let Some(answer) = answer(manner, &command, &ask, thaws)
            && stream.get_mut().write_all(&answer).await.is_err()
        {
            return;
        }
        line.clear();
    }
}

fn answer(manner: Manner, command: &str, ask: &Value, thaws: usize) -> Option<Vec<u8>> {
    let line = |value: Value| Some((value.to_string() + "\n").into_bytes());
    let refused = |desc: &str| line(json!({ "error": { "class": "GenericError", "desc": desc } }));
    match command {
        _ if manner == Manner::Mute => None,
        "guest-sync-delimited" => {
            let before: &[u8] =
                if manner == Manner::Chatters { b"half an answ\n{\"return\": 17}\n\n" } else { b"" };
            let answer = json!({ "return": ask["arguments"]["id"] }).to_string() + "\n";
            Some([before, b"\xff", answer.as_bytes()].concat())
        }
        "guest-fsfreeze-status" if manner == Manner::FrozenByOther => line(json!({ "return": "frozen" })),
        "guest-fsfreeze-status" if manner == Manner::LeftFrozen && thaws == 0 => {
            line(json!({ "return": "frozen" }))
        }
        "guest-fsfreeze-status" => line(json!({ "return": "thawed" })),
        "guest-fsfreeze-freeze" if manner == Manner::RefusesFreeze => refused("it is\nnot to be"),
        "guest-fsfreeze-freeze" if manner == Manner::HangsInFreeze => None,
        "guest-fsfreeze-thaw" if manner == Manner::RefusesThaw => refused("not at all"),
        "guest-fsfreeze-thaw" if manner == Manner::ThawsAtTheSecondTime && thaws == 1 => refused("not yet"),
        _ => line(json!({ "return": 2 })),
    }
}

async fn running(manner: Manner) -> (Machine, Agent, QemuSource) {
    let machine = Machine::start().await;
    machine.ask("cont", json!({})).await;
    let agent = Agent::start(&machine, manner);
    let source = with_agent(&machine, &agent, Duration::from_millis(400));
    (machine, agent, source)
}

fn with_agent(machine: &Machine, agent: &Agent, agent_timeout: Duration) -> QemuSource {
    let guest_agent = Some(agent.socket.clone());
    QemuSource::new(QemuConfig { guest_agent, agent_timeout, ..machine.config() })
}

const FREEZE: &str = "guest-fsfreeze-freeze";
const THAW: &str = "guest-fsfreeze-thaw";
const STATUS: &str = "guest-fsfreeze-status";

async fn the_guest_is_frozen_around_the_point_in_time() {
    let (machine, agent, _) = running(Manner::Good).await;
    let source = with_agent(&machine, &agent, Duration::from_secs(20));
    let point = freeze(&source, 1).await;
    assert_eq!(agent.told(), [STATUS, FREEZE, THAW]);
    assert_eq!(read(&source, &point.id, "disk0", 0).await, 0);
    freeze(&source, 1).await;
    assert_eq!(agent.told().len(), 3, "the point is there: nothing is frozen again");
}

async fn a_guest_that_does_not_run_is_not_asked() {
    let machine = Machine::start().await;
    let agent = Agent::start(&machine, Manner::Mute);
    let source = with_agent(&machine, &agent, Duration::from_millis(400));
    freeze(&source, 1).await;
    assert!(agent.told().is_empty());
}

/// No point in time, the guest thawed, nothing left in the machine.
async fn refused(machine: &Machine, source: &QemuSource) -> oma_core::Error {
    let error = source.freeze(&vm(), &job(1)).await.unwrap_err();
    assert_eq!(machine.leavings().await, [""; 0]);
    assert!(machine.bitmaps("n0").await.is_empty());
    error
}

async fn a_guest_that_refuses_is_thawed_and_nothing_is_left() {
    let (machine, agent, source) = running(Manner::RefusesFreeze).await;
    let error = refused(&machine, &source).await;
    assert!(error.chain().contains(r"it is\nnot to be"), "{}", error.chain());
    assert_eq!(agent.told(), [STATUS, FREEZE, THAW]);
}

async fn a_guest_that_hangs_in_the_freeze_is_thawed_and_nothing_is_left() {
    let (machine, agent, source) = running(Manner::HangsInFreeze).await;
    let error = refused(&machine, &source).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.chain());
    assert_eq!(agent.told(), [STATUS, FREEZE, THAW]);
}

async fn a_guest_that_never_answers_is_told_in_time() {
    let (machine, agent, source) = running(Manner::Mute).await;
    let error = refused(&machine, &source).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.chain());
    assert!(agent.told().is_empty(), "nothing was frozen");
}

async fn a_guest_that_is_thawed_only_later_is_asked_again() {
    let (_machine, agent, source) = running(Manner::ThawsAtTheSecondTime).await;
    freeze(&source, 1).await;
    assert_eq!(agent.told(), [STATUS, FREEZE, THAW, THAW]);
}

async fn a_guest_that_somebody_else_froze_is_left_alone() {
    let (machine, agent, source) = running(Manner::FrozenByOther).await;
    let error = refused(&machine, &source).await;
    assert_eq!(error.kind(), ErrorKind::Busy, "{}", error.chain());
    assert_eq!(agent.told(), [STATUS]);
}

/// A point in time that is not whole: its process ended where the guest may be frozen.
async fn interrupt(machine: &Machine) {
    let proxy = Proxy::start(machine.socket("proxy"), &machine.socket("second"), &Trouble::CutAfter(24));
    let cut_off = QemuSource::new(QemuConfig { qmp: proxy.socket.clone(), ..machine.config() });
    cut_off.freeze(&vm(), &job(1)).await.unwrap_err();
    assert!(!machine.leavings().await.is_empty(), "it was cut off too early");
}

async fn a_guest_that_an_interrupted_freeze_left_frozen_is_thawed() {
    let (machine, agent, _) = running(Manner::LeftFrozen).await;
    interrupt(&machine).await;
    let source = with_agent(&machine, &agent, Duration::from_secs(20));
    freeze(&source, 1).await;
    assert_eq!(agent.told(), [STATUS, THAW, STATUS, FREEZE, THAW]);
}

async fn a_guest_left_frozen_is_thawed_once_its_agent_answers_again() {
    let (machine, agent, _) = running(Manner::LeftFrozen).await;
    interrupt(&machine).await;
    let left = machine.leavings().await;
    let away = QemuConfig { guest_agent: Some(machine.socket("nobody")), ..machine.config() };
    let away = QemuSource::new(away);
    let frozen = away.freeze(&vm(), &job(1)).await.unwrap_err();
    let released = away.release(&point(1)).await.unwrap_err();
    for error in [frozen, released] {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.chain());
        assert!(error.chain().contains("guest-fsfreeze-thaw"), "{}", error.chain());
    }
    assert_eq!(machine.leavings().await, left, "what tells that the guest may be frozen stays");
    freeze(&with_agent(&machine, &agent, Duration::from_secs(20)), 2).await;
    assert_eq!(agent.told(), [STATUS, THAW, STATUS, FREEZE, THAW]);
}

async fn a_release_thaws_the_guest_that_an_interrupted_freeze_left_frozen() {
    let (machine, agent, _) = running(Manner::LeftFrozen).await;
    interrupt(&machine).await;
    with_agent(&machine, &agent, Duration::from_secs(20)).release(&point(1)).await.unwrap();
    assert_eq!(agent.told(), [STATUS, THAW]);
    assert_eq!(machine.leavings().await, [""; 0]);
}

async fn a_guest_that_could_not_be_thawed_is_not_forgotten() {
    let (machine, agent, _) = running(Manner::RefusesThaw).await;
    let source = with_agent(&machine, &agent, Duration::from_secs(20));
    let error = source.freeze(&vm(), &job(1)).await.unwrap_err();
    assert!(error.chain().contains("guest-fsfreeze-thaw"), "{}", error.chain());
    assert!(!machine.leavings().await.is_empty(), "what tells that the guest may be frozen stays");
}

async fn a_freeze_that_is_dropped_thaws_the_guest() {
    let (machine, mut agent, _) = running(Manner::HangsInFreeze).await;
    let source = with_agent(&machine, &agent, Duration::from_secs(60));
    let freezing = tokio::spawn(async move { source.freeze(&vm(), &job(1)).await.map(drop) });
    agent.waits_for(FREEZE).await;
    freezing.abort();
    agent.waits_for(THAW).await;
}

async fn left_over_bytes_of_another_client_do_no_harm() {
    let (_machine, agent, source) = running(Manner::Chatters).await;
    freeze(&source, 1).await;
    assert_eq!(agent.told(), [STATUS, FREEZE, THAW]);
}
