//! What the server costs that is not time: connections, requests under way and exports.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use futures_util::{StreamExt, TryFutureExt, TryStreamExt, stream};
use oma_benches::{Cell, Table, median};
use oma_nbd::protocol::{
    ExportNameReply, Greeting, NBD_CMD_READ, NBD_FLAG_C_FIXED_NEWSTYLE, NBD_FLAG_C_NO_ZEROES,
    NBD_OPT_EXPORT_NAME, OptionHeader, Request,
};
use oma_nbd::{Client, ClientConfig, Uri, client};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{interval, sleep, timeout};

use crate::disk::{Disks, Medium};
use crate::lean::{Action, Lean};
use crate::server::{Kind, Plan, Server, Transport};
use crate::{Effort, Result, reason};

/// Connections at once.
const CONNECTIONS: u32 = 256;
/// Exports of one server.
const EXPORTS: u32 = 1000;
/// Time for a server to answer what must not hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// Lets this process, and the servers it starts, have as many files as they may.
pub(crate) fn allow_many_files() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?)
}

/// Many connections at once, each with one request of 4 KiB under way, on every server.
pub(crate) async fn connections(kinds: &[Kind], disks: &Disks, effort: Effort) -> Result<Table> {
    const COLUMNS: [&str; 6] = [
        "server",
        "seconds to connect all",
        "k requests/s",
        "slowest : fastest connection",
        "server CPU s/100k requests",
        "KiB of memory for each idle connection",
    ];
    let mut table =
        Table::new(format!("### connections: {CONNECTIONS} at once, 4 KiB random read"), &COLUMNS);
    for kind in kinds {
        let name = kind.to_string().into();
        let measured = match kind.missing() {
            Some(reason) => Err(reason.into()),
            None => crowd(*kind, disks, effort).await,
        };
        let blank = Cell::Number(f64::NAN, 0);
        table.row(match measured {
            Ok([seconds, rate, fair, cpu, memory]) => vec![
                name,
                Cell::Number(seconds, 3),
                Cell::Number(rate / 1000.0, 2),
                Cell::Number(fair, 2),
                Cell::Number(cpu * 100_000.0, 3),
                Cell::Number(memory, 1),
            ],
            Err(error) => {
                vec![
                    name,
                    format!("not run: {}", reason(&error)).into(),
                    blank.clone(),
                    blank.clone(),
                    blank.clone(),
                    blank,
                ]
            }
        });
    }
    Ok(table)
}

async fn crowd(kind: Kind, disks: &Disks, effort: Effort) -> Result<[f64; 5]> {
    let server = start(kind, disks).await?;
    let idle = server.memory()?;
    let begun = Instant::now();
    let clients = open(&server, CONNECTIONS).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let memory = (server.memory()? - idle) / f64::from(CONNECTIONS);
    let lean = Lean { action: Action::RandomRead, connections: 1, depth: 1, block: 4096 };
    let (mut rates, mut fair, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        let (before, begun) = (server.cpu()?, Instant::now());
        let workers = clients.iter().cloned().zip(0..).map(|(client, number)| {
            tokio::spawn(async move { lean.random(&client, number, effort.window).await })
        });
        let done: Vec<f64> = try_join_all(workers).await?.into_iter().collect::<Result<_>>()?;
        let sum: f64 = done.iter().sum();
        let (low, high) = oma_benches::spread(done);
        rates.push(sum / begun.elapsed().as_secs_f64());
        fair.push(low / high);
        cpu.push((server.cpu()? - before) / sum);
    }
    server.stop().await?;
    Ok([seconds, median(rates), median(fair), median(cpu), memory])
}

/// So many connections of our client.
async fn open(server: &Server, count: u32) -> Result<Vec<Arc<Client>>> {
    let uri = Uri::parse(server.uri())?;
    let config = ClientConfig {
        connections: 1,
        requests_in_flight: 16,
        connect_timeout: PATIENCE,
        ..ClientConfig::default()
    };
    let opening = (0..count).map(|_| Client::connect(&uri, config.clone()).map_ok(Arc::new));
    // Few at a time: the queue of a unix socket that is full refuses at once.
    Ok(stream::iter(opening).buffered(8).try_collect().await?)
}

async fn start(kind: Kind, disks: &Disks) -> Result<Server> {
    serve(kind, &[disks.file(Medium::Full)?], disks).await
}

async fn serve(kind: Kind, files: &[PathBuf], disks: &Disks) -> Result<Server> {
    let transport = Transport::Unix;
    kind.start(Plan { files, transport, certificates: None, folder: disks.folder() }).await
}

/// Our server's memory with connections that do nothing, that work, and that do not read what they asked for.
pub(crate) async fn memory(disks: &Disks) -> Result<Table> {
    const WORKING: u32 = 16;
    const BLOCK: u32 = 256 << 10;
    let columns = ["our server with", "MiB", "more than idle, KiB", "for each of", "KiB for each"];
    let mut table = Table::new("### memory: our server".to_owned(), &columns);
    let server = start(Kind::Oma, disks).await?;
    let empty = server.memory()?;
    let mut row = |state: String, kib: f64, each: &str, count: u32| {
        let more = kib - empty;
        let cells = [Cell::Number(kib / 1024.0, 1), Cell::Number(more, 0), each.into()];
        let each = Cell::Number(more / f64::from(count), 1);
        table.row([Cell::from(state)].into_iter().chain(cells).chain([each]).collect());
    };
    row("nobody".to_owned(), empty, "–", 0);

    let clients = open(&server, CONNECTIONS).await?;
    row(format!("{CONNECTIONS} idle connections"), server.memory()?, "connection", CONNECTIONS);
    drop(clients);

    let clients = open(&server, WORKING).await?;
    let lean = Lean { action: Action::RandomRead, connections: 1, depth: WORKING, block: BLOCK };
    let workers: Vec<_> = (0..WORKING * WORKING)
        .zip(clients.iter().cycle())
        .map(|(number, client)| {
            let client = client.clone();
            tokio::spawn(async move { lean.random(&client, number, Duration::from_secs(2)).await })
        })
        .collect();
    let mut most = 0.0_f64;
    let mut tick = interval(Duration::from_millis(20));
    while !workers.iter().all(tokio::task::JoinHandle::is_finished) {
        tick.tick().await;
        most = most.max(server.memory()?);
    }
    for worker in try_join_all(workers).await? {
        worker?;
    }
    row(format!("{WORKING} × {WORKING} reads of 256 KiB under way"), most, "request", WORKING * WORKING);
    drop(clients);

    let greedy = try_join_all((0..WORKING).map(|_| greedy(&server))).await?;
    row(
        format!("{WORKING} connections that never read their replies"),
        settled(&server).await?,
        "connection",
        WORKING,
    );
    drop(greedy);
    row("nobody again".to_owned(), settled(&server).await?, "–", 0);
    server.stop().await?;
    Ok(table)
}

/// A connection that asks for 128 × 1 MiB and reads nothing.
async fn greedy(server: &Server) -> Result<UnixStream> {
    const NAME: &[u8] = b"disk";
    let mut stream = UnixStream::connect(server.socket()).await?;
    stream.read_exact(&mut [0; Greeting::SIZE]).await?;
    let option = OptionHeader { option: NBD_OPT_EXPORT_NAME, length: u32::try_from(NAME.len())? };
    let flags = (NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES).to_be_bytes();
    stream.write_all(&[&flags[..], &option.encode(), NAME].concat()).await?;
    stream.read_exact(&mut [0; ExportNameReply::SIZE]).await?;
    for cookie in 0..128 {
        let offset = (cookie % 16) << 20;
        let request = Request { flags: 0, command: NBD_CMD_READ, cookie, offset, length: 1 << 20 };
        // A server that has enough stops reading: then no more is asked.
        match timeout(Duration::from_millis(200), stream.write_all(&request.encode())).await {
            Ok(sent) => sent?,
            Err(_) => break,
        }
    }
    Ok(stream)
}

/// The memory once it has stopped to change.
async fn settled(server: &Server) -> Result<f64> {
    let mut before = f64::NAN;
    for _ in 0..50 {
        let now = server.memory()?;
        if (now - before).abs() < 64.0 {
            return Ok(now);
        }
        before = now;
        sleep(Duration::from_millis(200)).await;
    }
    Ok(before)
}

/// A thousand exports of our server: their memory, their list, and each of them opened.
pub(crate) async fn exports(disks: &Disks) -> Result<Table> {
    let columns = ["exports", "seconds to start", "KiB for each", "ms to list", "opened in a second"];
    let mut table = Table::new("### exports: our server, a file of 64 MiB each".to_owned(), &columns);
    let folder = tempfile::tempdir_in(disks.folder())?;
    let mut files = Vec::new();
    for number in 0..EXPORTS {
        let path = folder.path().join(format!("{number}.raw"));
        std::fs::File::create_new(&path)?.set_len(64 << 20)?;
        files.push(path);
    }
    let mut alone = 0.0;
    for count in [1, EXPORTS] {
        let [seconds, memory, list, opened] = shelf(disks, &files[..usize::try_from(count)?]).await?;
        if count == 1 {
            alone = memory;
        }
        table.row(vec![
            count.into(),
            Cell::Number(seconds, 3),
            Cell::Number((memory - alone) / f64::from(count), 1),
            Cell::Number(list * 1000.0, 2),
            Cell::Number(opened, 0),
        ]);
    }
    Ok(table)
}

async fn shelf(disks: &Disks, files: &[PathBuf]) -> Result<[f64; 4]> {
    let begun = Instant::now();
    let server = serve(Kind::Oma, files, disks).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let memory = server.memory()?;
    let begun = Instant::now();
    let listed = client::list(&Uri::parse(server.uri())?, &ClientConfig::default()).await?;
    let list = begun.elapsed().as_secs_f64();
    if listed.len() != files.len() {
        return Err(format!("{} of {} exports are listed", listed.len(), files.len()).into());
    }
    let begun = Instant::now();
    let config = ClientConfig { connections: 1, ..ClientConfig::default() };
    for export in &listed {
        let client = Client::connect(&Uri::unix(server.socket(), &export.name)?, config.clone()).await?;
        client.close().await;
    }
    let opened = f64::from(u32::try_from(listed.len())?) / begun.elapsed().as_secs_f64();
    server.stop().await?;
    Ok([seconds, memory, list, opened])
}
